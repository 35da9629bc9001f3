export default {
  install: ({ version }) => `在新机器上安装相同版本${version ? `（${version}）` : ''}：使用安装服务器时的 wheel 文件。`,
  'install-same': '需要 Linux 或 macOS，Python 3.11 或更高版本；此外只需 GPU 驱动。',
  'server-name': 'SERVER 代表新机器访问此服务器所用的名称或地址；您正在服务器本机上查看。',
  service: '如需开机自动启动（已安装 gpustack-worker.service 单元时）：',
  'service-where': '该单元文件位于源码的 contrib/systemd 目录。',
  start: '在新机器上启动。令牌通过提示输入，不会出现在命令行或历史记录中。',
  then: '几秒后它会自动出现在这里。如果没有，请用 gpustack doctor 检查。',
  token: '在服务器上读取加入集群的令牌：',
  'token-set': '即此处设置的令牌：{origin}。',
};
