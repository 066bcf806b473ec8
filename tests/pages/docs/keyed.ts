import { vi } from 'vitest';

export const console = { log: vi.fn<(...parts: unknown[]) => void>() };
