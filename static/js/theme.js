// Runs before the first paint: the theme chosen here, else the system's, else dark.
(() => {
  const choice = () => { try { return localStorage.getItem("forebay-theme") || "system"; } catch { return "system"; } };
  const light = matchMedia("(prefers-color-scheme: light)");
  const apply = () => {
    const theme = choice() === "system" ? (light.matches ? "light" : "dark") : choice();
    document.documentElement.dataset.theme = theme;
    document.documentElement.dataset.choice = choice();
    document.dispatchEvent(new CustomEvent("forebay:theme", { detail: theme }));
  };
  window.forebaySetTheme = (value) => {
    try { localStorage.setItem("forebay-theme", value); } catch { /* private window: the choice lasts for this page */ }
    apply();
    if (choice() !== value && value !== "system") document.documentElement.dataset.theme = value;
  };
  light.addEventListener("change", apply);
  apply();
})();
