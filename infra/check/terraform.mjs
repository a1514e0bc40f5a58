// What `terraform validate` would say, as far as it can be said without the provider itself.

import fs from "node:fs";
import { calleeOf, texts, unwrapped } from "./files.mjs";

const schema = JSON.parse(fs.readFileSync(new URL("schema.json", import.meta.url), "utf8"));

const META = new Set(["count", "for_each", "provider", "depends_on", "lifecycle", "provisioner", "connection"]);
const CALL_META = new Set(["source", "version", "providers", "count", "for_each", "depends_on"]);

/** Every variable and output says what it is; variables have a type. */
export function described({ modules }, report) {
  for (const module of modules.values()) {
    for (const [name, { file, body }] of Object.entries(module.variables)) {
      if (!body.description?.trim()) report(file, `variable ${name} has no description`);
      if (body.type === undefined) report(file, `variable ${name} has no type`);
    }
    for (const [name, { file, body }] of Object.entries(module.outputs)) {
      if (!body.description?.trim()) report(file, `output ${name} has no description`);
    }
  }
}

/** Modules that are called are there, get what they need and nothing else. */
export function calls({ modules }, report) {
  for (const module of modules.values()) {
    for (const [name, { file, body }] of Object.entries(module.calls)) {
      const callee = calleeOf(modules, module, body);
      if (!callee) {
        report(file, `module ${name}: there is no module in ${body.source}`);
        continue;
      }
      const given = Object.keys(body).filter((key) => !CALL_META.has(key));
      for (const key of given) {
        if (!callee.variables[key]) report(file, `module ${name}: ${callee.folder} has no variable ${key}`);
      }
      for (const [key, variable] of Object.entries(callee.variables)) {
        if (variable.body.default === undefined && !given.includes(key)) {
          report(file, `module ${name} lacks ${key}, which has no default`);
        }
      }
      const providers = body.providers ?? {};
      for (const provider of texts(Object.values(providers)).map(unwrapped)) {
        if (!module.providers.has(provider)) report(file, `module ${name}: there is no provider ${provider}`);
      }
      // Without the list a module has the caller's own; with it, what the list has.
      const needed = body.providers || callee.aliases.size > 0 ? ["aws", ...callee.aliases] : [];
      for (const alias of needed) if (!providers[alias]) report(file, `module ${name} lacks the provider ${alias}`);
      for (const alias of Object.keys(providers)) if (!needed.includes(alias)) report(file, `module ${name}: ${callee.folder} has no provider ${alias}`);
    }
  }
}

/** The code inside of a template, at any depth, without the literal texts: `a ${b("c ${d}")}` gives `b("  d ")`. */
function codeIn(template) {
  let code = "";
  // What is open: "text" (of the template or of a literal in code) or a number of open braces in code.
  const open = ["text"];
  for (let at = 0; at < template.length; at++) {
    const here = template[at];
    const inText = open.at(-1) === "text";
    if (inText && here === "$" && template[at + 1] === "$") {
      at += 2; // `$${` is a plain `${`
    } else if (inText && here === "\\") {
      at += 1;
    } else if (inText && (here === "$" || here === "%") && template[at + 1] === "{") {
      open.push(0);
      code += " ";
      at += 1;
    } else if (inText && here === '"' && open.length > 1) {
      open.pop();
      code += '"';
    } else if (!inText && here === '"') {
      open.push("text");
      code += '"';
    } else if (!inText && here === "}" && open.at(-1) === 0) {
      open.pop();
      code += " ";
    } else if (!inText) {
      if (here === "{") open[open.length - 1]++;
      if (here === "}") open[open.length - 1]--;
      code += here;
    }
  }
  return code;
}

const REFERENCE = /(?<![\w.\]-])(var|local|module|data|aws_\w+)\.([A-Za-z_][\w-]*)((?:\[[^\]]*\])*)(?:\.([A-Za-z_*][\w-]*))?((?:\[[^\]]*\])*)(?:\.([A-Za-z_][\w-]*))?/g;

const referencesOf = new Map(); // the same texts are looked at again for every breakage

function referencesIn(text) {
  if (!referencesOf.has(text)) referencesOf.set(text, [...codeIn(text).matchAll(REFERENCE)]);
  return referencesOf.get(text);
}

/** What is referred to is declared, and what is declared is referred to. */
export function references({ modules }, report) {
  for (const module of modules.values()) {
    const used = { variables: new Set(), locals: new Set(), data: new Set() };
    for (const { file, tree } of module.files) {
      const { variable, ...others } = tree;
      for (const match of texts(others).flatMap(referencesIn)) {
        check(modules, module, match, used, (message) => report(file, message));
      }
      // What a variable's own validation says of it is no use of it.
      for (const [name, body] of Object.entries(variable ?? {})) {
        const usedBefore = used.variables.has(name);
        for (const match of texts(body).flatMap(referencesIn)) {
          check(modules, module, match, used, (message) => report(file, message));
        }
        if (!usedBefore) used.variables.delete(name);
      }
    }
    const example = module.folder.includes("/examples/");
    for (const [name, { file }] of Object.entries(module.variables)) {
      if (!used.variables.has(name)) report(file, `variable ${name} is used by nothing`);
    }
    for (const [name, { file }] of Object.entries(module.locals)) {
      if (!used.locals.has(name)) report(file, `local ${name} is used by nothing`);
    }
    for (const [name, { file }] of Object.entries(module.data)) {
      if (!used.data.has(name) && !example) report(file, `data ${name} is used by nothing`);
    }
  }
}

function check(modules, module, [whole, kind, first, , second, , third], used, report) {
  if (kind === "var") {
    used.variables.add(first);
    if (!module.variables[first]) report(`${whole}: there is no variable ${first}`);
  } else if (kind === "local") {
    used.locals.add(first);
    if (!module.locals[first]) report(`${whole}: there is no local ${first}`);
  } else if (kind === "module") {
    const call = module.calls[first];
    if (!call) report(`${whole}: there is no module ${first}`);
    const callee = call && calleeOf(modules, module, call.body);
    if (callee && second && second !== "*" && !callee.outputs[second]) report(`${whole}: ${callee.folder} has no output ${second}`);
  } else if (kind === "data") {
    used.data.add(`${first}.${second}`);
    if (!module.data[`${first}.${second}`]) report(`${whole}: there is no data ${first}.${second}`);
    else if (third) readable(`data.${first}`, third, whole, report);
  } else if (!module.resources[`${kind}.${first}`]) {
    report(`${whole}: there is no resource ${kind}.${first}`);
  } else {
    const attribute = second === "*" ? third : second;
    if (attribute) readable(kind, attribute, whole, report);
  }
}

function readable(type, attribute, whole, report) {
  const known = schema.types[type];
  if (!known) return; // `argumentsKnown` reports it
  const names = known.blocks[""].map((name) => name.replace(/[{}!]/g, ""));
  if (!names.includes(attribute) && !known.reads.includes(attribute)) report(`${whole}: ${type} has no ${attribute}`);
}

/** Resources and data sources have the arguments that the provider knows, and those that it needs. */
export function argumentsKnown({ modules }, report) {
  for (const module of modules.values()) {
    const things = [...Object.values(module.resources), ...Object.values(module.data).map((d) => ({ ...d, type: `data.${d.type}` }))];
    for (const { file, type, name, body } of things) {
      const provider = unwrapped(body.provider ?? "aws");
      if (!module.providers.has(provider)) report(file, `${type}.${name}: there is no provider ${provider}`);
      const known = schema.types[type];
      if (!known) {
        report(file, `${type} is not in infra/check/schema.json; renew it as infra/check/schema.mjs says`);
        continue;
      }
      checkBlock(known.blocks, "", body, META, (message) => report(file, `${type}.${name}: ${message}`));
    }
  }
}

function checkBlock(blocks, prefix, body, meta, report) {
  const known = Object.fromEntries(
    blocks[prefix].map((entry) => [entry.replace(/[{}!]/g, ""), { block: entry.includes("{}"), required: entry.endsWith("!") }]),
  );
  const dynamic = Object.entries(body.dynamic ?? {}).map(([name, [block]]) => [name, block.content]);
  const given = [...Object.entries(body).filter(([name]) => name !== "dynamic" && !meta.has(name)), ...dynamic];
  const where = prefix ? `${prefix}: ` : "";
  for (const [name, value] of given) {
    if (!known[name]) {
      report(`${where}there is no argument ${name}`);
    } else if (known[name].block) {
      const nested = prefix ? `${prefix}.${name}` : name;
      if (!blocks[nested]) continue; // a block within itself, such as `statement` of a firewall
      for (const block of Array.isArray(value) ? value : [value]) checkBlock(blocks, nested, block, new Set(), report);
    }
  }
  const names = new Set(given.map(([name]) => name));
  for (const [name, { required }] of Object.entries(known)) {
    if (required && !names.has(name)) report(`${where}${name} is missing`);
  }
}

/** Nothing waits for itself, through any number of modules: Terraform says so only once it has the provider. */
export function cycles({ modules }, report) {
  for (const rootModule of modules.values()) {
    if (!rootModule.folder.includes("/examples/")) continue;
    const graph = new Map(); // "path:thing" to the things that it waits for
    expand(modules, rootModule, "", null, graph);
    const done = new Set();
    const open = [];
    const visit = (node) => {
      if (done.has(node)) return false;
      if (open.includes(node)) {
        report(rootModule.folder, `these wait for each other: ${[...open.slice(open.indexOf(node)), node].join(" → ")}`);
        return true;
      }
      open.push(node);
      const found = (graph.get(node) ?? []).some(visit);
      open.pop();
      done.add(node);
      return found;
    };
    [...graph.keys()].some(visit);
  }
}

/** Adds a module, as one call of it makes it. */
function expand(modules, module, at, call, graph) {
  const waitsFor = (body, scope = module, where = at) =>
    texts(body).flatMap(referencesIn).flatMap(([, kind, first, , second]) => {
      if (kind === "module") {
        // A module as a whole is all that it puts out.
        const callee = scope.calls[first] && calleeOf(modules, scope, scope.calls[first].body);
        const outputs = callee?.outputs[second] ? [second] : Object.keys(callee?.outputs ?? {});
        return [`${where}${first}/`, ...outputs.map((output) => `${where}${first}/output.${output}`)];
      }
      if (kind === "data") return [`${where}data.${first}.${second}`];
      if (kind === "var" || kind === "local") return [`${where}${kind}.${first}`];
      return scope.resources[`${kind}.${first}`] ? [`${where}${kind}.${first}`] : [];
    });
  const whole = call ? [at] : [];
  for (const [name, { body }] of Object.entries(module.variables)) {
    const given = call?.body[name];
    const others = waitsFor(body.validation ?? []).filter((node) => node !== `${at}var.${name}`);
    graph.set(`${at}var.${name}`, [...(given === undefined ? [] : waitsFor([given], call.scope, call.where)), ...others]);
  }
  for (const [name, { body }] of Object.entries(module.locals)) graph.set(`${at}local.${name}`, waitsFor([body]));
  for (const [name, { body }] of Object.entries(module.outputs)) graph.set(`${at}output.${name}`, waitsFor(body));
  for (const [name, { body }] of Object.entries(module.resources)) graph.set(`${at}${name}`, [...waitsFor(body), ...whole]);
  for (const [name, { body }] of Object.entries(module.data)) graph.set(`${at}data.${name}`, [...waitsFor(body), ...whole]);
  for (const [name, { body }] of Object.entries(module.calls)) {
    const callee = calleeOf(modules, module, body);
    const { count, for_each: forEach, depends_on: dependsOn } = body;
    graph.set(`${at}${name}/`, [...waitsFor([count, forEach, dependsOn].filter((part) => part !== undefined)), ...whole]);
    if (callee) expand(modules, callee, `${at}${name}/`, { body, scope: module, where: at }, graph);
  }
}
