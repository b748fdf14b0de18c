// Evaluates expressions with the package @bufbuild/cel. Standard input: JSON, [[expression, values], …]; output: JSON, [result, …],
// where a result is true, false or "unknown" (an error, or a value that is no bool).
const { celEnv, parse, plan } = require("@bufbuild/cel");

const env = celEnv();
const results = [];
for (const [expression, values] of JSON.parse(require("node:fs").readFileSync(0, "utf8"))) {
  let result = "unknown";
  try {
    const found = plan(env, parse(expression))(values);
    if (typeof found === "boolean") {
      result = found;
    }
  } catch {
    // An error that is thrown is an error as one that is returned.
  }
  results.push(result);
}
process.stdout.write(JSON.stringify(results));
