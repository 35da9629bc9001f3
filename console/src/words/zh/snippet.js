export default {
  call: '调用',
  key: '密钥',
  language: '语言',
  made: '密钥已创建。',
  make: '为该模型创建密钥',
  need: '代码从 {variable} 读取密钥。在此创建的密钥只能调用该模型，并列在“访问控制”中。',
  once: '密钥仅此一次显示，请妥善保存。',
  set: '为避免留在命令历史中，请在提示时输入：',
  title: '调用 {name}',
};
