// Light or dark: as the system says, until a person says otherwise.

const KEY = "greenroom.theme";

/** Applies what was chosen, and returns what is in force. */
export function theme() {
  const chosen = localStorage.getItem(KEY);
  if (chosen) document.documentElement.dataset.theme = chosen;
  return chosen ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

/** The other one, from now on. */
export function switchTheme() {
  localStorage.setItem(KEY, theme() === "dark" ? "light" : "dark");
  theme();
}
