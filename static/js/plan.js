// Below a preview: a chip fills in the reason, and what has to be typed is typed before it can be applied.
document.addEventListener("click", (event) => {
  const chip = event.target.closest("[data-reason]");
  const input = chip?.closest("form").querySelector("[name=reason]");
  if (input) { input.value = chip.dataset.reason; input.focus(); }
});
