// The edits that the stage shows: started here or opened, kept up to date by events, and by polls while they wait.

import { useEffect, useReducer } from "./vendor/htm-preact.js";

const POLL_MS = 1500;

/** What is known of a generation that is shown. */
export const startRun = (generation) => ({
  key: generation.generation_id, generation, label: "", before: null, preview: null, step: 0, steps: 0, phase: null, percent: 0,
});

/** The picture that went in, where the service still has it. */
export const pictureBefore = (generation) => [generation.input_image].flat().filter(Boolean)[0] ?? generation.parent_thumbnail ?? null;

function reduced(state, action) {
  switch (action.type) {
    case "show": return { runs: action.runs, chosen: action.runs.length === 1 ? 0 : null };
    case "choose": return { ...state, chosen: action.index };
    case "change": return { ...state, runs: state.runs.map((run) => (run.key === action.key ? { ...run, ...action.changes } : run)) };
    default: return state;
  }
}

// What is shown outlives a look at another view.
let last = { runs: [], chosen: null };

export function useRuns(session) {
  const [state, dispatch] = useReducer((before, action) => (last = reduced(before, action)), last);
  const update = (generation) => dispatch({ type: "change", key: generation.generation_id, changes: { generation } });
  const isOpen = ({ generation }) => ["queued", "processing"].includes(generation.status);
  const open = state.runs.filter(isOpen).map((run) => run.key).join(" ");

  useEffect(() => session.listen(({ type, data }) => {
    const key = data.generation_id;
    if (type === "resync") return open.split(" ").filter(Boolean).forEach((one) => session.api.generation(one).then(update, () => {}));
    if (!last.runs.some((run) => run.key === key)) return undefined;
    if (type === "media_generation_progress") {
      const { step = 0, steps = 0, phase = null, model_loaded_percent: percent = 0, preview } = data;
      return dispatch({ type: "change", key, changes: { step, steps, phase, percent, ...(preview ? { preview } : {}) } });
    }
    session.api.generation(key).then(update, () => {});
    return undefined;
  }), [session, open]);

  // A position in the queue, or a model that is being loaded, is no event.
  useEffect(() => {
    if (!open) return undefined;
    const timer = setInterval(() => {
      for (const key of open.split(" ")) session.api.generation(key).then(update, () => {});
    }, POLL_MS);
    return () => clearInterval(timer);
  }, [session, open]);

  return {
    ...state, update,
    show: (runs) => dispatch({ type: "show", runs }),
    choose: (index) => dispatch({ type: "choose", index }),
  };
}

const known = new Map();

/** A generation and those that it came of, the first one first; as far as the service still has them. */
export async function lineageOf(api, generation) {
  const chain = [generation];
  while (chain[0].parent_generation_id && chain.length < 30) {
    const id = chain[0].parent_generation_id;
    try {
      if (!known.has(id)) known.set(id, await api.generation(id));
    } catch {
      break;
    }
    chain.unshift(known.get(id));
  }
  return chain;
}
