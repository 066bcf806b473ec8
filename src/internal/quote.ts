/** Longer ones are cut: whoever chose the text does not choose the size of the log. */
const MAX_LENGTH = 64;

/**
 * A text of the caller's as it may stand in a message: one line, in quotes, bounded. What a terminal
 * or a log could take for more than text (line ends, escape sequences, direction marks, half a
 * surrogate pair) is escaped.
 */
export function quote(text: string): string {
  const cut = text.length > MAX_LENGTH ? `${text.slice(0, MAX_LENGTH)}…` : text;
  // JSON leaves the C1 controls, the Unicode line ends and the format characters as they are.
  return JSON.stringify(cut).replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}
