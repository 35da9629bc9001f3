// What somebody chose for this browser: kept in its storage where that is allowed, else for this page alone.

/** @param {string} name @returns {string | null} */
export function chosen(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** @param {string} name @param {string | null} value `null` forgets it */
export function choose(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    // Not kept; it holds until the page is left.
  }
}
