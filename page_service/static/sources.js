// The pictures that were chosen, from the files themselves: nothing is asked of any server for them.

import { element } from "./elements.js";

const SMALL = 240; // pixels a side; smaller pictures are shown with sharp pixels
const FRAME = 640; // pixels of the longer side of a frame: two dozen of a large video would fill the memory
const PATIENCE_MS = 10_000; // for a browser that neither shows a video nor says that it cannot

export class Source {
  constructor(file) {
    this.file = file;
    this.isVideo = file.type.startsWith("video/"); // until the server has told
    this.url = URL.createObjectURL(file);
    this.sha256 = null; // told by the server
    this.askedAt = new Set(); // budgets for which the server has its tokens, unless they were dropped since
    this.made = new Map(); // promises of pictures, by the seconds of their frames: both columns and the slider want the same
  }

  forget() {
    URL.revokeObjectURL(this.url);
    this.made.clear();
  }

  // What is sent: its name where the server has made its tokens for this budget, else the file.
  form(budget, whole) {
    return this.sha256 && this.askedAt.has(budget) && !whole ? `${this.isVideo ? "video" : "image"}:${this.sha256}` : this.file;
  }

  // An element with the picture, or with the frames at these seconds, each with its width and height; null where this browser
  // cannot show the file. They are the caller's to copy.
  pictures(seconds) {
    const key = this.isVideo ? (seconds ?? [0]).join() : "image";
    if (!this.made.has(key)) this.made.set(key, this.isVideo ? this.framesOrNone(seconds ?? [0]) : this.image().then((image) => [image]));
    return this.made.get(key);
  }

  async image() {
    const image = element("img", { alt: "", src: this.url });
    try {
      await image.decode();
    } catch {
      return null;
    }
    if (Math.max(image.naturalWidth, image.naturalHeight) <= SMALL) image.classList.add("small");
    return { node: image, width: image.naturalWidth, height: image.naturalHeight };
  }

  async framesOrNone(seconds) {
    try {
      return await this.frames(seconds);
    } catch {
      return seconds.map(() => null);
    }
  }

  async frames(seconds) {
    const video = element("video", { preload: "auto" });
    video.muted = true;
    try {
      video.src = this.url;
      await once(video, "loadeddata");
      const found = [];
      for (const second of seconds) {
        // A little later than the frame begins, so that rounding does not show the one before.
        const sought = once(video, "seeked");
        video.currentTime = Math.min(second + 0.001, video.duration || Infinity);
        await sought;
        found.push(frameOf(video));
      }
      return found;
    } finally {
      video.removeAttribute("src");
      video.load(); // lets go of the file; browsers hold few at once
    }
  }
}

// The same picture stands in several panels.
export function copyOf({ node, width, height }) {
  const copy = node.cloneNode();
  if (copy.localName === "canvas") copy.getContext("2d").drawImage(node, 0, 0);
  return { node: copy, width, height };
}

function frameOf(video) {
  const scale = Math.min(1, FRAME / Math.max(video.videoWidth, video.videoHeight));
  const width = Math.max(1, Math.round(video.videoWidth * scale));
  const height = Math.max(1, Math.round(video.videoHeight * scale));
  const canvas = element("canvas", { width, height });
  canvas.getContext("2d").drawImage(video, 0, 0, width, height);
  return { node: canvas, width, height };
}

function once(video, name) {
  return new Promise((resolve, reject) => {
    const heard = new AbortController();
    const end = (settle) => () => {
      clearTimeout(patience);
      heard.abort();
      settle();
    };
    const fail = end(() => reject(new Error("cannot be shown")));
    const patience = setTimeout(fail, PATIENCE_MS);
    video.addEventListener(name, end(resolve), { signal: heard.signal });
    video.addEventListener("error", fail, { signal: heard.signal });
  });
}
