// What scrolls can be reached by the keyboard, and the search box has a name.
function reach() {
  document.querySelectorAll(".md-typeset__scrollwrap").forEach((table) => (table.tabIndex = 0));
  document.querySelector("[role=dialog]")?.setAttribute("aria-label", "Search");
}
new MutationObserver(reach).observe(document.body, { childList: true, subtree: true });
reach();
