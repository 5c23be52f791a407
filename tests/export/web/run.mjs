// Runs an exported file in onnxruntime-web: reads a request from stdin, writes the outputs to stdout, both as JSON.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(`${process.env.MODULES}/`);
const ort = require("onnxruntime-web");
ort.env.wasm.numThreads = 1;

const request = JSON.parse(readFileSync(0, "utf8"));
const session = await ort.InferenceSession.create(readFileSync(request.file));
const feeds = Object.fromEntries(
  Object.entries(request.inputs).map(([name, rows]) => [
    name,
    new ort.Tensor("float32", Float32Array.from(rows.flat()), [rows.length, rows[0].length]),
  ]),
);
const outputs = await session.run(feeds);
const answer = Object.fromEntries(
  Object.entries(outputs).map(([name, tensor]) => [name, Array.from(tensor.data)]),
);
process.stdout.write(JSON.stringify(answer));
