export type JestReport = {
  numPassedTests: number;
  numFailedTests: number;
  numRuntimeErrorTestSuites: number;
  testResults: {
    status: string;
    name: string;
    assertionResults: { status: string; fullName: string }[];
  }[];
};
export type MatrixRun = {
  title: string;
  report: JestReport | undefined;
  end: number;
  seconds: number;
};
export const PAIRS: readonly string[];
export const ON_EACH_PAIR: readonly string[];
export const ON_EACH_KIND: readonly string[];
export function matrixRuns(
  words: readonly string[],
): { title: string; args: string[]; env: Record<string, string> }[];
export function matrixSummary(runs: readonly MatrixRun[]): { text: string; failed: number };
export function mergedReport(runs: readonly MatrixRun[]): JestReport;
