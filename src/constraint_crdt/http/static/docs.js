// Shows /openapi.json: the operations by group, each with its parameters, its body, its answers.

const MOST_DEEP = 6;

const made = (tag, content = [], attributes = {}) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...[content].flat());
  return element;
};

// A number beyond those that JavaScript has exactly: what is in the document is one less than a power of two.
const limit = (value) =>
  Number.isInteger(value) && Math.abs(value) > Number.MAX_SAFE_INTEGER
    ? `${value < 0 ? "1 - " : ""}2^${Math.log2(Math.abs(value))}${value < 0 ? "" : " - 1"}`
    : String(value);

// What bounds a value beside its type, in parentheses. A description says it better than a length or a pattern does.
function bounds(schema) {
  const said = [
    ["minimum", (value) => `from ${limit(value)}`],
    ["exclusiveMinimum", (value) => `above ${limit(value)}`],
    ["maximum", (value) => `to ${limit(value)}`],
    ["exclusiveMaximum", (value) => `below ${limit(value)}`],
    ["maxItems", (value) => `at most ${value}`],
    ["maxProperties", (value) => `at most ${value}`],
    ["description", (value) => value],
    ...(schema.description ? [] : [["maxLength", (value) => `at most ${value} characters`], ["pattern", (value) => value]]),
  ];
  const parts = said.filter(([key]) => schema[key] !== undefined).map(([key, say]) => say(schema[key]));
  return parts.length ? ` (${parts.join(", ")})` : "";
}

// A schema as something to read: the shape of the JSON, with the names of types in it.
function shape(schema, components, deep = 0) {
  if (!schema) return "…";
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return deep > MOST_DEEP ? name : shape(components[name], components, deep + 1);
  }
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" | ");
  const several = schema.anyOf;
  if (several) return several.map((each) => shape(each, components, deep)).join(" | ");
  if (schema.type === "array") {
    const item = shape(schema.items, components, deep);
    const fixed = schema.minItems !== undefined && schema.minItems === schema.maxItems;
    if (fixed) return `[${Array(schema.minItems).fill(item).join(", ")}]${bounds({ description: schema.description })}`;
    return `[${item}, …]${bounds(schema)}`;
  }
  if (schema.type === "object" && schema.properties) {
    const indent = "  ".repeat(deep + 1);
    const required = new Set(schema.required ?? []);
    const lines = Object.entries(schema.properties).map(
      ([name, each]) => `${indent}${JSON.stringify(name)}${required.has(name) ? "" : "?"}: ${shape(each, components, deep + 1)}`,
    );
    return `{\n${lines.join(",\n")}\n${"  ".repeat(deep)}}`;
  }
  if (schema.type === "object") return `{"…": ${shape(schema.additionalProperties, components, deep)}}${bounds(schema)}`;
  const types = [schema.type ?? "anything"].flat().join(" | ");
  return [types, schema.format ?? schema.contentEncoding].filter(Boolean).join(" ") + bounds(schema);
}

function bodies(content, components) {
  return Object.entries(content ?? {}).flatMap(([type, { schema }]) => [
    made("p", made("code", type), { class: "faint" }),
    ...(schema ? [made("pre", shape(schema, components))] : []),
  ]);
}

function rows(heads, lines) {
  const head = made("tr", heads.map((each) => made("th", each, { scope: "col" })));
  return made("table", [made("thead", head), made("tbody", lines.map((cells) => made("tr", cells.map((each) => made("td", each)))))]);
}

function shown(path, method, operation, components) {
  const title = [made("span", method.toUpperCase(), { class: "method" }), made("code", path), ` ${operation.summary}`];
  const content = [];
  if (operation.description) content.push(made("p", operation.description));
  if (operation.parameters.length) {
    content.push(
      rows(
        ["parameter", "in", "what it says"],
        operation.parameters.map((each) => [
          made("code", each.name),
          each.required ? `${each.in}, required` : each.in,
          `${each.description}: ${shape(each.schema, components)}`,
        ]),
      ),
    );
  }
  if (operation.requestBody) content.push(made("h3", "Send"), ...bodies(operation.requestBody.content, components));
  const [good, problems] = [[], []];
  for (const [status, answer] of Object.entries(operation.responses)) (status < "400" ? good : problems).push([status, answer]);
  for (const [status, answer] of good) {
    content.push(made("h3", `${status}: ${answer.description}`), ...bodies(answer.content, components));
  }
  content.push(made("h3", "Problems"), rows(["status", "why"], problems.map(([status, answer]) => [status, answer.description])));
  return made("details", [made("summary", title), ...content], { id: operation.operationId });
}

function show(openapi) {
  const groups = new Map();
  for (const [path, methods] of Object.entries(openapi.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const group = operation.tags[0];
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push(shown(path, method, operation, openapi.components.schemas));
    }
  }
  const about = openapi.info.description.trim().split("\n\n");
  document.querySelector("#about").replaceChildren(...about.map((text) => made("p", text.replaceAll("\n", " "))));
  document
    .querySelector("#operations")
    .replaceChildren(...[...groups].map(([name, found]) => made("section", [made("h2", name), ...found])));
}

function find(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const each of document.querySelectorAll("details")) {
    const said = `${each.id} ${each.firstChild.textContent}`.toLowerCase();
    each.hidden = !words.every((word) => said.includes(word));
  }
  for (const each of document.querySelectorAll("section")) each.hidden = !each.querySelector("details:not([hidden])");
}

document.querySelector("#find").addEventListener("input", (event) => find(event.target.value));
fetch("openapi.json")
  .then((response) => response.json())
  .then(show)
  .catch(() => {
    document.querySelector("#about").textContent = "The node does not answer: load this page again.";
  });
