// The pictures that were chosen, from the files themselves: nothing is asked of any server for them.

import { element } from "./elements.js";

const SMALL = 240; // pixels a side; smaller pictures are shown with sharp pixels

export class Source {
  constructor(file) {
    this.file = file;
    this.isVideo = file.type.startsWith("video/"); // until the server has told
    this.url = URL.createObjectURL(file);
    this.sha256 = null; // told by the server
    this.askedAt = new Set(); // budgets for which the server has its tokens, unless they were dropped since
  }

  forget() {
    URL.revokeObjectURL(this.url);
  }

  // What is sent: its name where the server has made its tokens for this budget, else the file.
  form(budget, whole) {
    return this.sha256 && this.askedAt.has(budget) && !whole ? `${this.isVideo ? "video" : "image"}:${this.sha256}` : this.file;
  }

  // An element with the picture, or with the frames at these seconds, each with its width and height; null where this browser
  // cannot show the file.
  async pictures(seconds) {
    if (!this.isVideo) return [await this.image()];
    try {
      return await this.frames(seconds ?? [0]);
    } catch {
      return (seconds ?? [0]).map(() => null);
    }
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

  async frames(seconds) {
    const video = element("video", { preload: "auto" });
    video.muted = true;
    video.src = this.url;
    await once(video, "loadeddata");
    const found = [];
    for (const second of seconds) {
      // A little later than the frame begins, so that rounding does not show the one before.
      video.currentTime = Math.min(second + 0.001, video.duration);
      await once(video, "seeked");
      const canvas = element("canvas", { width: video.videoWidth, height: video.videoHeight });
      canvas.getContext("2d").drawImage(video, 0, 0);
      found.push({ node: canvas, width: video.videoWidth, height: video.videoHeight });
    }
    video.removeAttribute("src");
    return found;
  }
}

function once(video, name) {
  return new Promise((resolve, reject) => {
    video.addEventListener(name, resolve, { once: true });
    video.addEventListener("error", () => reject(new Error("cannot be shown")), { once: true });
  });
}
