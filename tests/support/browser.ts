import chromium from '@sparticuz/chromium';
import { type Browser, chromium as playwright, type Page } from 'playwright-core';

/** Chromium, without a window. To be closed by the test. */
export async function launchBrowser(): Promise<Browser> {
  return playwright.launch({
    executablePath: await chromium.executablePath(),
    // With one process for everything the browser ends together with its first context.
    args: chromium.args.filter((arg) => arg !== '--single-process'),
  });
}

/** The contrast of an element's text with what is behind it, as WCAG 2 has it. */
export function contrast(page: Page, selector: string): Promise<number> {
  return page
    .locator(selector)
    .first()
    .evaluate((element) => {
      const channels = (color: string): number[] => (color.match(/[\d.]+/g) ?? []).map(Number);
      const luminance = ([r = 0, g = 0, b = 0]: number[]): number => {
        const [red, green, blue] = [r, g, b].map((value) => {
          const part = value / 255;
          return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!;
      };
      const isOpaque = (color: number[]): boolean => color.length === 3 || color[3]! > 0;
      let behind: Element | null = element;
      let background: number[] = [];
      while (behind !== null && background.length === 0) {
        const color = channels(getComputedStyle(behind).backgroundColor);
        if (isOpaque(color)) background = color;
        behind = behind.parentElement;
      }
      const [lighter = 0, darker = 0] = [channels(getComputedStyle(element).color), background]
        .map(luminance)
        .toSorted((a, b) => b - a);
      return (lighter + 0.05) / (darker + 0.05);
    });
}
