export const callModel = async (_question: string, _options: object): Promise<string> => 'Because.';
