// Files dropped anywhere on the page. Anything else that is dropped does nothing, but for text in a field of text: a browser would
// leave the page for a link, and take what was asked with it.

// `taken` gets the files, `refused` why there are none; `over` whether something hovers above the page.
export function takeDrops({ taken, refused, over }) {
  for (const name of ["dragenter", "dragover"]) {
    addEventListener(name, (event) => {
      if (isTextForField(event)) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
      over(true);
    });
  }
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) over(false); // out of the window, not from one part of the page to the next
  });
  addEventListener("dragend", () => over(false));
  addEventListener("drop", (event) => {
    over(false);
    if (isTextForField(event)) return;
    event.preventDefault();
    const { files, items, types } = event.dataTransfer;
    const folder = [...items].map((item) => item.webkitGetAsEntry?.()).find((entry) => entry?.isDirectory);
    if (folder) refused(`${folder.name} is a folder. Drop the files in it.`);
    else if (files.length) taken(files);
    else if (types.includes("text/uri-list")) refused("A link was dropped. This page fetches nothing: save the picture, and drop the file.");
    else refused("What was dropped is not a file.");
  });
}

function isTextForField(event) {
  const field = event.target.closest?.("input[type=text], textarea");
  return Boolean(field) && !event.dataTransfer.types.includes("Files");
}
