// Reads infra/ into one model that the rules look at: every file's text, what HCL and YAML files mean, and Terraform's
// modules put together from their files.

import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parse as parseHcl } from "@cdktf/hcl2json";
import { parse as parseYaml } from "yaml";

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");

const SKIPPED = new Set(["node_modules", ".terraform"]);

/** Every file below a folder, relative to the repository. Links are not followed. */
function walk(folder) {
  return fs.readdirSync(path.join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const name = path.join(folder, entry.name);
    if (entry.isDirectory()) return SKIPPED.has(entry.name) ? [] : walk(name);
    return entry.isFile() ? [name] : [];
  });
}

const isModule = (name) => name.endsWith(".tf");
const isHcl = (name) => /\.(tf|tfvars|hcl)(\.example)?$/.test(name) && !name.endsWith(".lock.hcl");
const isYaml = (name) => /\.ya?ml$/.test(name);

/** Files by name: infra/, and what is written about it. `infra/check` is not looked at: it is the looker. */
export function readFiles() {
  const prose = [...walk("docs").filter((name) => name.endsWith(".md")), "README.md"];
  const names = [...walk("infra").filter((name) => !name.startsWith("infra/check/")), "scripts/check-infra", ...prose];
  return new Map(names.sort().map((name) => [name, fs.readFileSync(path.join(root, name), "utf8")]));
}

const parsed = new Map(); // by text: a broken copy differs in one file, the others need not be parsed again

async function parse(name, text) {
  const key = `${name}\n${text}`;
  if (!parsed.has(key)) {
    parsed.set(key, isYaml(name) ? parseYaml(text, { merge: true }) : await parseHcl(path.basename(name), text));
  }
  return parsed.get(key);
}

/**
 * The model of a set of files.
 * `report(file, message)` is told of what cannot be parsed.
 */
export async function model(files, report) {
  const trees = new Map();
  for (const [name, text] of files) {
    if (!isHcl(name) && !isYaml(name)) continue;
    try {
      trees.set(name, (await parse(name, text)) ?? {});
    } catch (error) {
      const message = error.message.split("\n").map((line) => line.trim()).filter(Boolean);
      report(name, `cannot be parsed: ${message.slice(0, 3).join(" ")}`);
    }
  }
  const modules = new Map();
  for (const [name, tree] of trees) {
    if (!isModule(name)) continue;
    const folder = path.dirname(name);
    if (!modules.has(folder)) modules.set(folder, emptyModule(folder));
    addTo(modules.get(folder), name, tree);
  }
  return { files, trees, modules };
}

function emptyModule(folder) {
  return { folder, files: [], variables: {}, locals: {}, outputs: {}, calls: {}, resources: {}, data: {}, providers: new Set(["aws"]), aliases: new Set() };
}

function addTo(module, file, tree) {
  module.files.push({ file, tree });
  const take = (kind, into) => {
    for (const [name, [body]] of Object.entries(tree[kind] ?? {})) module[into][name] = { file, body };
  };
  take("variable", "variables");
  take("output", "outputs");
  take("module", "calls");
  for (const block of tree.locals ?? []) {
    for (const [name, value] of Object.entries(block)) module.locals[name] = { file, body: value };
  }
  for (const [kind, into] of [["resource", "resources"], ["data", "data"]]) {
    for (const [type, byName] of Object.entries(tree[kind] ?? {})) {
      for (const [name, [body]] of Object.entries(byName)) {
        module[into][`${type}.${name}`] = { file, type, name, body };
      }
    }
  }
  for (const block of tree.provider?.aws ?? []) {
    if (block.alias) module.providers.add(`aws.${block.alias}`);
  }
  // Those that a caller must give.
  for (const { required_providers: [needed] = [] } of tree.terraform ?? []) {
    for (const alias of texts(needed?.aws?.configuration_aliases).map(unwrapped)) {
      module.providers.add(alias);
      module.aliases.add(alias);
    }
  }
}

/** Every address. */
export const WORLD = ["0.0.0.0/0", "::/0"];

/** All resources of a type, each with its module. */
export const resourcesOf = (modules, type) =>
  [...modules.values()].flatMap((module) => Object.values(module.resources).filter((r) => r.type === type).map((r) => ({ ...r, module })));

/** The module that is called. */
export const calleeOf = (modules, module, body) =>
  typeof body.source === "string" && body.source.startsWith(".")
    ? modules.get(path.normalize(path.join(module.folder, body.source)))
    : undefined;

/** A reference alone, without the template around it. */
export const unwrapped = (text) => text.replace(/^\$\{(.*)\}$/s, "$1");

/** All texts inside of a value. */
export function texts(value) {
  if (typeof value === "string") return [value];
  if (Array.isArray(value)) return value.flatMap(texts);
  if (value && typeof value === "object") return Object.entries(value).flatMap(([key, inner]) => [key, ...texts(inner)]);
  return [];
}
