// Reads resources as JSON from standard input; prints what the operators' schemas say against each.
import { readFileSync } from "node:fs";
import * as keda from "@kubernetes-models/keda/keda.sh/v1alpha1";
import * as prometheus from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

const kinds = { ...keda, ...prometheus };
const faults = JSON.parse(readFileSync(0, "utf-8")).flatMap((resource) => {
  try {
    new kinds[resource.kind](resource).validate();
    return [];
  } catch (error) {
    return [`${resource.kind}: ${error.message}`];
  }
});
console.log(JSON.stringify(faults));
