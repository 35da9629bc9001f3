export default {
  address: '任何兼容 OpenAI 的客户端均可使用，地址为 {address}。',
  key: '密钥',
  language: '语言',
  made: '密钥已创建。',
  make: '为它创建密钥',
  'needs-key': '调用需要密钥。在此创建的密钥只能用于此模型。',
  once: '仅显示这一次，请妥善保存。',
  others: '其他密钥',
  set: '代码从 {variable} 读取密钥。为避免留在命令历史中，请这样输入：',
  title: '调用',
  'title-of': '调用 {name}',
};
