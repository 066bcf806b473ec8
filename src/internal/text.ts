/** Line breaks, terminal escapes, text that reorders what is shown, and halves of surrogate pairs. */
const UNPRINTABLE = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu;

/** The text as a log line may show it: each character that could forge or garble one becomes U+FFFD. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, '\uFFFD');
}

/** At most the first `length` UTF-16 units of the text. What is cut off is not kept in memory. */
export function cut(text: string, length: number): string {
  if (text.length <= length) return text;
  // A slice would hold on to the whole text; what is parsed is a copy.
  return JSON.parse(JSON.stringify(text.slice(0, length))) as string;
}

/** How many bytes the text takes in UTF-8; half a surrogate pair counts as the U+FFFD it becomes. */
export function utf8Length(text: string): number {
  let bytes = 0;
  for (let i = 0; i < text.length; i++) {
    const point = text.codePointAt(i)!;
    if (point < 0x80) bytes += 1;
    else if (point < 0x800) bytes += 2;
    else if (point < 0x10000) bytes += 3;
    else {
      bytes += 4;
      // Its second half.
      i++;
    }
  }
  return bytes;
}
