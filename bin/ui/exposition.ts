/**
 * Prometheus' text format: families of samples with HELP and TYPE, each family in one piece.
 *
 * Pure. Source: Prometheus docs, "Exposition formats: Text-based format".
 */
export type Sample = { labels: Readonly<Record<string, string>>; value: number };

export type Family = { name: string; help: string; type: 'gauge' | 'counter'; samples: readonly Sample[] };

/** Families without samples are left out. */
export function exposition(families: readonly Family[]): string {
  return families
    .filter(({ samples }) => samples.length > 0)
    .map(({ name, help, type, samples }) =>
      [
        `# HELP ${name} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}`,
        `# TYPE ${name} ${type}`,
        ...samples.map(({ labels, value }) => `${name}${labelsOf(labels)} ${value}`),
        '',
      ].join('\n'),
    )
    .join('');
}

function labelsOf(labels: Sample['labels']): string {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${escape(value)}"`);
  return parts.length === 0 ? '' : `{${parts.join(',')}}`;
}

const escape = (value: string): string =>
  value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
