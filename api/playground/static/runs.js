// The edits that the stage shows: started here or opened, kept up to date by events, and by polls while they wait.

import { useEffect, useReducer } from "./vendor/htm-preact.js";

const POLL_MS = 1500;

/** What is known of a generation that is shown. */
export const startRun = (generation) => ({
  key: generation.generation_id, generation, label: "", before: null, preview: null, step: 0, steps: 0, phase: null, percent: 0,
});

/** The picture that went in, where the service still has it. */
export const pictureBefore = (generation) => [generation.input_image].flat().filter(Boolean)[0] ?? generation.parent_thumbnail ?? null;

/** What a poll tells of a run: how far it is, too, for where no events come. */
function changesOf(generation) {
  const { status, phase, progress } = generation;
  if (status === "queued") return { generation, step: 0, phase: null, percent: 0, preview: null };
  return { generation, phase, step: progress.step, steps: progress.steps, percent: progress.model_loaded_percent ?? 0 };
}

function reduced(state, action) {
  switch (action.type) {
    case "show": return { runs: action.runs, chosen: action.runs.length === 1 ? 0 : null };
    case "add": {
      const runs = [...state.runs, action.run];
      // From the second one on they are looked at side by side, unless one of them is being looked at.
      return { runs, chosen: runs.length === 2 ? null : state.chosen };
    }
    case "remove": {
      const runs = state.runs.filter((run) => run.key !== action.key);
      return { runs, chosen: runs.length === 1 ? 0 : null };
    }
    case "choose": return { ...state, chosen: action.index };
    case "change": return { ...state, runs: state.runs.map((run) => (run.key === action.key ? { ...run, ...action.changes } : run)) };
    default: return state;
  }
}

export function useRuns(session) {
  // What is shown outlives a look at another view.
  const [state, dispatch] = useReducer((before, action) => (session.kept.runs = reduced(before, action)), session.kept.runs ?? { runs: [], chosen: null });
  const update = (generation) => dispatch({ type: "change", key: generation.generation_id, changes: changesOf(generation) });
  const read = (key) => session.api.generation(key).then(update, (error) => {
    if (error.status === 404) dispatch({ type: "change", key, changes: { isGone: true } });
  });
  const isOpen = ({ generation, isGone }) => !isGone && ["queued", "processing"].includes(generation.status);
  const open = state.runs.filter(isOpen).map((run) => run.key).join(" ");

  useEffect(() => session.listen(({ type, data }) => {
    const key = data.generation_id;
    if (type === "resync") return open.split(" ").filter(Boolean).forEach(read);
    if (!session.kept.runs?.runs.some((run) => run.key === key)) return undefined;
    if (type === "media_generation_progress") {
      const { step = 0, steps = 0, phase = null, model_loaded_percent: percent = 0, preview } = data;
      return dispatch({ type: "change", key, changes: { step, steps, phase, percent, ...(preview ? { preview } : {}) } });
    }
    read(key);
    return undefined;
  }), [session, open]);

  // A position in the queue, or a model that is being loaded, is no event.
  useEffect(() => {
    if (!open) return undefined;
    // The next look follows the last one's answer: while the service is away, none pile up.
    let timer = setTimeout(async function look() {
      await Promise.all(open.split(" ").map(read));
      if (timer !== null) timer = setTimeout(look, POLL_MS);
    }, POLL_MS);
    return () => { clearTimeout(timer); timer = null; };
  }, [session, open]);

  return {
    ...state, update,
    show: (runs) => dispatch({ type: "show", runs }),
    add: (run) => dispatch({ type: "add", run }),
    remove: (key) => dispatch({ type: "remove", key }),
    choose: (index) => dispatch({ type: "choose", index }),
  };
}

/** A generation and those that it came of, the first one first; as far as the service still has them. */
export async function lineageOf(session, generation) {
  const known = (session.kept.ancestors ??= new Map());
  const chain = [generation];
  while (chain[0].parent_generation_id && chain.length < 30) {
    const id = chain[0].parent_generation_id;
    try {
      if (!known.has(id)) known.set(id, await session.api.generation(id));
    } catch {
      break;
    }
    chain.unshift(known.get(id));
  }
  return chain;
}
