// Writes schema.json: which arguments and attributes the AWS provider has for what infra/terraform uses. Terraform's own
// check needs the provider itself; this needs the bindings that were once generated from it, and npm has those.
//
// To renew, or after a new type of resource (400 MB, once):
//   npm install --prefix /tmp/bindings --ignore-scripts --legacy-peer-deps @cdktf/provider-aws@21.22.1
//   node infra/check/schema.mjs /tmp/bindings/node_modules/@cdktf/provider-aws
//
// One type in schema.json: its blocks by name, "" being the type itself, as lists of arguments ("name!": required,
// "name{}": a block), and under "reads" what can only be read of it.

import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parse } from "@cdktf/hcl2json";

const infra = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");

/** Every `resource` and `data` type in use, data ones as `data.<type>`. */
async function typesInUse() {
  const types = new Set();
  for (const file of walk("terraform")) {
    const tree = await parse(file, fs.readFileSync(path.join(infra, file), "utf8"));
    for (const type of Object.keys(tree.resource ?? {})) types.add(type);
    for (const type of Object.keys(tree.data ?? {})) types.add(`data.${type}`);
  }
  return [...types].sort();
}

function walk(folder) {
  return fs.readdirSync(path.join(infra, folder), { withFileTypes: true }).flatMap((entry) => {
    const name = path.join(folder, entry.name);
    if (entry.isDirectory()) return walk(name);
    return name.endsWith(".tf") ? [name] : [];
  });
}

/** `s3_bucket_policy` for `bucketPolicy`, from the anchors of the documentation, which hold the real name. */
function properties(body) {
  const found = {};
  const pattern = /\/\*\*([\s\S]*?)\*\/\s*readonly (\w+)(\?)?: ([^;]+);/g;
  for (const [, comment, name, optional, type] of body.matchAll(pattern)) {
    const anchor = comment.match(/#(\w+) \w+#\w+\}/);
    const snake = anchor ? anchor[1] : snakeCase(name);
    found[snake] = { required: !optional, type };
  }
  return found;
}

const snakeCase = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function schemaOf(folder) {
  const types = fs.readFileSync(path.join(folder, "index.d.ts"), "utf8");
  const script = fs.readFileSync(path.join(folder, "index.js"), "utf8");
  const interfaces = {};
  for (const [, name, body] of types.matchAll(/export interface (\w+)(?: extends [\w.]+)? \{\n([\s\S]*?)\n\}/g)) {
    interfaces[name] = properties(body);
  }
  const config = types.match(/constructor\(scope: Construct, id: string, config\??: (\w+)\)/)[1];
  const isBlock = (owner, name) => {
    // From `xToHclTerraform` of the owner, or the class's own list.
    const head = owner === config ? "synthesizeHclAttributes() {" : `function ${owner[0].toLowerCase()}${owner.slice(1)}ToHclTerraform(struct) {`;
    const start = script.indexOf(head);
    const attribute = start < 0 ? -1 : script.indexOf(`\n            ${name}: {`, start);
    const nested = start < 0 ? -1 : script.indexOf(`\n        ${name}: {`, start);
    const at = [attribute, nested].filter((i) => i >= 0).sort((a, b) => a - b)[0];
    return at === undefined ? false : /isBlock: true/.test(script.slice(at, script.indexOf("},", at)));
  };
  const blocks = {};
  const visit = (owner, prefix) => {
    blocks[prefix] = [];
    for (const [name, { required, type }] of Object.entries(interfaces[owner])) {
      const struct = type.match(/^\w+/)?.[0];
      const block = interfaces[struct] !== undefined && isBlock(owner, name);
      blocks[prefix].push(name + (block ? "{}" : "") + (required ? "!" : ""));
      if (block && !prefix.split(".").includes(name)) visit(struct, prefix ? `${prefix}.${name}` : name);
    }
    blocks[prefix].sort();
  };
  visit(config, "");
  const main = types.slice(types.lastIndexOf("extends cdktf.Terraform"));
  const reads = [...main.matchAll(/\n    get (\w+)\(\)/g)].map(([, name]) => snakeCase(name)).filter((name) => !name.endsWith("_input"));
  const written = new Set(blocks[""].map((name) => name.replace(/[{}!]/g, "")));
  return { blocks, reads: [...new Set(reads)].filter((name) => !written.has(name)).sort() };
}

const bindings = process.argv[2];
if (!bindings) {
  console.error("usage: node infra/check/schema.mjs FOLDER OF @cdktf/provider-aws");
  process.exit(2);
}
const { cdktf } = JSON.parse(fs.readFileSync(path.join(bindings, "package.json"), "utf8"));
const schema = { provider: cdktf.provider.name.replace(/^.*\/(\w+\/\w+)$/, "$1"), version: cdktf.provider.version, types: {} };
for (const type of await typesInUse()) {
  const folder = type.replace(/^data\.aws_/, "data-aws-").replace(/^aws_/, "").replaceAll("_", "-");
  schema.types[type] = schemaOf(path.join(bindings, "lib", folder));
}
const lines = Object.entries(schema.types).map(([type, value]) => `    ${JSON.stringify(type)}: ${JSON.stringify(value)}`);
const head = `{\n  "provider": ${JSON.stringify(schema.provider)},\n  "version": ${JSON.stringify(schema.version)},\n  "types": {\n`;
fs.writeFileSync(path.join(infra, "check/schema.json"), `${head}${lines.join(",\n")}\n  }\n}\n`);
console.log(`schema.json: ${lines.length} types of ${schema.provider} ${schema.version}`);
process.exit(0); // the parser's runtime would keep us
