/** Wait; no time, or less, is the next turn of the event loop. */
export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, milliseconds)));
}
