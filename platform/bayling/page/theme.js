// The theme that was chosen here, or else the one that the system prefers.
document.documentElement.dataset.theme =
  localStorage.getItem("bayling.theme") ??
  (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
