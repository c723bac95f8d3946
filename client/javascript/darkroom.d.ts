/** A URL, a data URI, a Blob or bytes. */
export type Picture = string | Blob | ArrayBuffer | ArrayBufferView;

export interface EditRequest {
  prompt: string;
  /** Or `input_image`, as the API has it. */
  image?: Picture | Picture[] | null;
  /** Or `mask_image`: white where to paint anew. */
  mask?: Picture | null;
  model?: string;
  /** The model's parameters, and those of every request: docs/parameters.md, docs/api.md. */
  [parameter: string]: unknown;
}

export interface Accepted {
  ids: string[];
  cursor: string;
}

/** A generation as docs/api.md has it. */
export interface Generation {
  generation_id: string;
  status: "queued" | "processing" | "succeeded" | "failed" | "cancelled";
  model_name: string;
  prompt: string;
  seed: number;
  result_url: string | null;
  download_url: string | null;
  thumbnail_url: string | null;
  expires_at: number | null;
  width: number | null;
  height: number | null;
  error_code: string | null;
  error_message: string | null;
  queue_position: number | null;
  progress: { step: number; steps: number; model_loaded_percent: number | null };
  [field: string]: unknown;
}

export interface DarkroomEvent {
  type: string;
  cursor: string;
  data: Record<string, unknown> & { generation_id?: string; status?: string; step?: number; steps?: number; preview?: string };
}

export class DarkroomError extends Error {
  status: number;
  code: string;
  field: string | null;
  retryAfterS: number | null;
}

export class EditError extends DarkroomError {
  generation: Generation;
}

export interface Options {
  signal?: AbortSignal;
  idempotencyKey?: string;
}

export function randomId(): string;

export class Darkroom {
  constructor(options: { url?: string; key: string; fetch?: typeof fetch; timeoutMs?: number });
  submit(request: EditRequest, options?: Options): Promise<Accepted>;
  /** Aborting cancels the edit, unless it has an `idempotencyKey`. */
  edit(request: EditRequest, options?: Options & { onEvent?: (event: DarkroomEvent) => void }): Promise<Generation>;
  follow(id: string, options?: { since?: string; signal?: AbortSignal }): AsyncGenerator<DarkroomEvent>;
  events(options?: {
    since?: string;
    generationId?: string;
    types?: string;
    signal?: AbortSignal;
    onState?: (state: "open" | "lost") => void;
  }): AsyncGenerator<DarkroomEvent>;
  generation(id: string, options?: { waitS?: number; signal?: AbortSignal }): Promise<Generation>;
  wait(id: string, options?: { signal?: AbortSignal }): Promise<Generation>;
  download(generation: Generation): Promise<Blob>;
  list(filters?: Record<string, string | number>, options?: { signal?: AbortSignal }): Promise<{ generations: Generation[]; next: string | null }>;
  cancel(id: string): Promise<boolean>;
  erase(id: string): Promise<{ generations: number; events: number; objects: number }>;
  json(method: string, path: string, request?: Record<string, unknown>): Promise<any>;
}
