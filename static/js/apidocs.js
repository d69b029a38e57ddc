// Swagger UI has colours of its own for the dark: they follow the theme that was chosen for the pages.
(() => {
  const follow = () => document.documentElement.classList.toggle("dark-mode", document.documentElement.dataset.theme === "dark");
  document.addEventListener("forebay:theme", follow);
  follow();
})();
