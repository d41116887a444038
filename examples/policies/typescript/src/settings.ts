// What the operator may set.

export interface Settings {
  /** GPU seconds a tenant may use in a window; 0 is no quota. */
  quota_s: number;
  quota_window_s: number;
  /** Points a waiting job gains in a second; a class is 100 points. */
  ageing_per_second: number;
  /** The most a job waits for a better instance while another is free. */
  max_extra_wait_ms: number;
  /** A card this hot gets no new jobs until it is at `cool_c` again. */
  hot_c: number;
  cool_c: number;
  /** Taken for a load nothing is known about. */
  assumed_load_ms: number;
}

export const defaults: Readonly<Settings> = {
  quota_s: 0,
  quota_window_s: 3_600,
  ageing_per_second: 1,
  max_extra_wait_ms: 15_000,
  hot_c: 83,
  cool_c: 75,
  assumed_load_ms: 8_500,
};

/** What is thrown is a text: the router shows it to the operator. */
export function parse(json: string): Settings {
  const given: Record<string, unknown> = JSON.parse(json);
  const settings: Settings = { ...defaults };
  for (const [name, value] of Object.entries(given)) {
    if (!(name in defaults)) throw `unknown setting ${name}, known are ${Object.keys(defaults).join(", ")}`;
    if (typeof value !== "number") throw `${name} must be a number`;
    settings[name as keyof Settings] = value;
  }
  for (const name of ["quota_s", "ageing_per_second", "max_extra_wait_ms", "assumed_load_ms"] as const) {
    if (settings[name] < 0) throw `${name} must not be negative`;
  }
  if (settings.quota_window_s < 1) throw "quota_window_s must be at least 1";
  if (settings.cool_c >= settings.hot_c) throw "cool_c must be below hot_c";
  return settings;
}
