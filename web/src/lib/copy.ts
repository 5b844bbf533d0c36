// Putting text where people paste it from.

/** Tries to, and says in words what became of it. Browsers offer the clipboard to secure pages only: loopback is one, a plain
 * address on the network is none. */
export async function copy(text: string): Promise<string> {
  try {
    await navigator.clipboard.writeText(text);
    return "Copied.";
  } catch {
    return "This browser does not let the page copy: select the text instead.";
  }
}
