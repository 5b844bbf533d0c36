// The node's reports, as `/api` sends them: ids in hexadecimal, credits in µGFT, times in milliseconds.
// The Rust side is `talka_node::api`.

/** Layers, half open. */
export type Span = [start: number, end: number];

export interface Stage {
  node: string;
  name: string;
  span: Span;
}

export interface Model {
  name: string;
  id: string;
  shape: { layers: number; hidden: number; vocab: number; context: number; precision: string };
  weight_bytes: number;
  coverage: Stage[];
  complete: boolean;
  is_encoder: boolean;
  share_bytes: number | null;
  load_ms: number | null;
  rests: boolean;
  loads: boolean;
  adapters: string[];
}

export interface Upstream {
  name: string;
  address: string;
  models: string[];
  has_key: boolean;
  asked: number;
  failed: number;
  last_failure: string | null;
}

export interface RouteTaken {
  at: number;
  model: string;
  hops: Stage[];
  token_us: number;
  why: string;
}

export type Faults = Record<string, number>;

export interface Status {
  version: string;
  node: string;
  name: string;
  member: string;
  network: string;
  network_name: string;
  founder: string;
  started_at: number;
  nodes_alive: number;
  nodes_known: number;
  requests_running: number;
  sessions_held: number;
  tokens_chosen: number;
  busy_ms: number;
  socket_bytes_sent: number;
  socket_bytes_received: number;
  flops_per_second: number;
  memory_bytes_per_second: number;
  closed: string | null;
  models: Model[];
  routes: RouteTaken[];
  upstreams: Upstream[];
  faults_of_strangers: Faults;
  balance: number;
  ledger_height: number;
}

export interface Peer {
  node: string;
  name: string;
  member: string;
  this: boolean;
  alive: boolean;
  silent_ms: number | null;
  memory_bytes: number;
  load: number;
  round_trip_us: number | null;
  link_bytes_per_second: number | null;
  flops_per_second: number;
  memory_bytes_per_second: number;
  closed: string | null;
  serves: [model: string, span: Span][];
  faults: Faults;
  layer_us: [model: string, us: number][];
  standing: Standing;
}

/** What the ledger knows of a node: what its work counts for. */
export interface Standing {
  class: string | null;
  index: number | null;
  multiplier: number;
  quarantined_until: number | null;
  reliability: number;
  tasks: number;
  tasks_completed: number;
  halted: string | null;
}

/** A model on this node's disk. */
export interface ShelfModel {
  ref: string;
  bytes: number;
  whole: boolean;
  served: boolean;
}

/** A fetch from the hub. */
export interface Pull {
  ref: string;
  state: "running" | "done" | "failed" | "stopped";
  done_bytes: number;
  total_bytes: number;
  error: string | null;
}

export interface Settings {
  threads: number;
  bandwidth_bytes: number | null;
  memory_bytes: number;
  cache_bytes: number;
  hours: string[];
  when_idle: boolean;
  closed: string | null;
  sharing: string;
  weights: string | null;
  mixes_precision: boolean;
  rules: { grant: number; reservation_ms_max: number; price_per_mille: [precision: string, factor: number][] };
}

export interface Member {
  member: string;
  name: string;
  balance: number;
  granted: number;
  earned: number;
  spent: number;
  flops: number;
}

export interface Credits {
  member: string;
  balance: number;
  reserved: number;
  held: number;
  members: Member[];
}

/** What the amounts of an entry follow from; a price in µGFT is FLOPs × per_mille / 10^6, rounded up, or the price of so many tokens. */
export type Basis =
  | { of: "quote"; prompt_tokens: number; max_new_tokens: number; layers: number; flops: number; per_mille: number; per_million_tokens: number | null }
  | { of: "work"; positions: number; logits: number; work: Work[]; per_mille: number | null; per_million_tokens: number | null }
  | { of: "epoch"; number: number; papers: number; papers_here: boolean; sessions: Session[] }
  | { of: "tariff"; prompt_tokens: number; max_new_tokens: number; multiple_per_mille: number | null; per_thousand_tokens: number | null };

/** One of the requests that an epoch ended. */
export interface Session {
  request: string;
  payer: string | null;
  cost: number;
  settled: boolean;
  basis?: Basis;
}

export interface Work extends Stage {
  flops: number | null;
  /** In ten-thousandths, like the next. */
  multiplier: number | null;
  reliability: number | null;
}

export interface Entry {
  height: number;
  at: number;
  hash: string;
  kind: string;
  request: string | null;
  postings: Posting[];
  basis?: Basis;
}

export interface Posting {
  /** A member, or mint, burn or treasury. */
  account: string;
  /** Which part of a member's credits. */
  bucket: "spendable" | "reserved" | "held" | "stake" | null;
  change: number;
}

export interface Verified {
  entries: number;
  signatures: number;
  postings: number;
  papers: number;
  members: number;
  minted: number;
  balances: number;
  reserved: number;
  head: string;
  state: string;
}

export interface Invite {
  invite: string;
  expires_at: number;
  reusable: boolean;
}

export interface Considered {
  node: string;
  name: string;
  span: Span;
  layer_us: number;
  load: number;
  from_head_us: number;
  through_us: number | null;
  chosen: boolean;
  why: string;
}

export interface Route {
  model: string;
  layers: number;
  hops: Stage[];
  token_us: number | null;
  missing: Span | null;
  considered: Considered[];
  closed: { node: string; name: string; why: string }[];
}

/** What an answer's last chunk says of it. */
export interface Provenance {
  request: string;
  cost_micro_gft: number;
  flops: number;
  route: Stage[];
  upstream?: string;
}

/** A key that lets programs in; amounts in µGFT, times in milliseconds. */
export interface Key {
  id: string;
  name: string;
  scopes: ("infer" | "admin")[];
  budget: number | null;
  requests_per_minute: number | null;
  concurrent: number | null;
  created_at: number;
  expires_at: number | null;
  spent: number;
  held: number;
  running: number;
}

/** A training job at a glance. */
export interface Run {
  name: string;
  state: "preparing" | "running" | "stopped" | "done" | "failed";
  reason: string | null;
  submitted_at: number;
  step: number;
  steps: number;
  tokens: number;
  loss: number | null;
  validation_loss: number | null;
  tokens_per_second: number;
  left_ms: number | null;
  bytes_sent: number;
  bytes_received: number;
  together: Together | null;
  parameters: number;
  vocab: number;
  data: string[];
  versions: RunVersion[];
  serving: number | null;
  served_before: number | null;
}

/** How a job that several members train stands. */
export interface Together {
  job: string;
  round: number;
  rounds: number;
  members_min: number;
  members: Trainee[];
}

/** A member of a job. */
export interface Trainee {
  node: string;
  name: string;
  is_seated: boolean;
  is_leader: boolean;
  tokens: number;
  round: number;
  loss: number | null;
  tokens_per_second: number;
}

/** A job that others train. */
export interface OpenJob {
  name: string;
  job: string;
  founder: string;
  rounds: number;
  members_min: number;
  nodes: string[];
  joined: boolean;
}

/** What a job would take of a node. */
export interface Estimate {
  memory_bytes: number;
  tokens_per_second: number;
  total_ms: number;
  bytes_per_day: number;
  credits: number;
}

/** How a member's part of a round went. */
export interface MemberPoint {
  node: string;
  round: number;
  loss: number;
  tokens_per_second: number;
}

/** A model that a job made. */
export interface RunVersion {
  step: number;
  model: string;
  made_at: number;
  loss: number | null;
  validation_loss: number | null;
  weights: string;
}

/** A point of a job's course. */
export interface RunPoint {
  step: number;
  at: number;
  loss: number | null;
  validation_loss: number | null;
  tokens_per_second: number | null;
}

/** A job file as JSON. */
export interface Job {
  [field: string]: Job | string | number | boolean | null | string[];
}

/** A job with its course. */
export interface RunDetail {
  run: Run;
  job: Job;
  points: RunPoint[];
  member_points: MemberPoint[];
}
