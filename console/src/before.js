// Runs before anything is painted: the theme and language that somebody chose, so that nothing flashes.
{
  const root = document.documentElement;
  try {
    const theme = localStorage.getItem('theme');
    if (theme === 'light' || theme === 'dark') root.dataset.theme = theme;
    const language = localStorage.getItem('language') ?? navigator.language;
    if (language.toLowerCase().startsWith('zh')) root.lang = 'zh-CN';
  } catch {
    // Storage is shut off: the browser's own preferences hold.
  }
}
