// Runs before anything is painted: the theme and language that somebody chose, or those of the browser, so that nothing flashes.
{
  const root = document.documentElement;
  const kept = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null; // Storage is shut off.
    }
  };
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const paint = () => {
    const theme = kept('theme');
    root.dataset.theme = theme === 'light' || theme === 'dark' ? theme : dark.matches ? 'dark' : 'light';
  };
  paint();
  dark.addEventListener('change', paint);
  if ((kept('language') ?? navigator.language).toLowerCase().startsWith('zh')) root.lang = 'zh-CN';
}
