export default {
  address: '任何兼容 OpenAI 的客户端均可使用，地址为 {address}。',
  key: '密钥',
  language: '语言',
  make: '为它创建密钥',
  'needs-key': '调用需要密钥。在此创建的密钥只能用于此模型。',
  once: '仅显示这一次，已写入下方代码。请立即复制。',
  others: '其他密钥',
  title: '调用',
};
