// What people read: files, commands, flags, outputs and variables that docs, comments and descriptions name are there.

import fs from "node:fs";
import path from "node:path";
import { root } from "./files.mjs";

const PRODUCTION = "infra/terraform/examples/production";

/** Made while one follows the docs, and kept out of the repository. */
const MADE = [
  "infra/docker/insforge.toml",
  "infra/packer/packer-manifest.json",
  "infra/packer/production.pkrvars.hcl",
  "infra/packer/release/functions",
  `${PRODUCTION}/terraform.tfvars`,
  `${PRODUCTION}/backend.hcl`,
];

const isProse = (file) => file.endsWith(".md");
const isThere = (name) => MADE.includes(name) || fs.existsSync(path.join(root, name));

/** Files that are named from the root of the repository: in prose, comments, descriptions of alarms. */
export function filesNamed({ files }, report) {
  for (const [file, text] of files) {
    for (const [, name] of text.matchAll(/(?<![\w./{}$-])((?:infra|docs|scripts|crates|migrations|examples)\/[\w./-]*\w)/g)) {
      // `examples/production` is one of Terraform's.
      if (!isThere(name) && !fs.existsSync(path.join(root, "infra/terraform", name))) report(file, `there is no ${name}`);
    }
  }
}

/** What is asked of Terraform: outputs, and variables that are set by hand. */
export function terraformNamed({ files, modules, trees }, report) {
  const outputs = (file) => ({
    ...modules.get(PRODUCTION)?.outputs,
    ...(file.startsWith("infra/docker/") ? modules.get("infra/terraform/examples/one-server")?.outputs : {}),
  });
  const settings = new Set([...modules.values()].flatMap((module) => Object.keys(module.variables)));
  for (const tree of trees.values()) for (const name of Object.keys(tree.variable ?? {})) settings.add(name);
  for (const key of configurationKeys()) settings.add(key);
  for (const [file, text] of files) {
    const asked = file.startsWith("infra/bin/") ? /\$\(output (\w+)/g : /\bterraform output (?:-\w+ )*(\w+)/g;
    if (isProse(file) || file.startsWith("infra/bin/")) {
      for (const [, name] of text.matchAll(asked)) if (!outputs(file)[name]) report(file, `terraform output ${name}: there is no such output`);
    }
    if (!isProse(file) || !/^(docs|infra)\//.test(file)) continue;
    for (const [, name] of text.matchAll(/-var (\w+)=/g)) {
      if (!modules.get(PRODUCTION)?.variables[name]) report(file, `-var ${name}: ${PRODUCTION} has no such variable`);
    }
    for (const [, name] of text.matchAll(/`(?:\w+\.)?(\w+) = [^`]+`/g)) {
      if (!settings.has(name)) report(file, `${name} = …: neither Terraform nor insforge-cloud has such a setting`);
    }
  }
}

function configurationKeys() {
  return ["sections", "aws", "objects"]
    .map((name) => fs.readFileSync(path.join(root, `crates/server/src/config/${name}.rs`), "utf8"))
    .flatMap((text) => [...text.matchAll(/^ {4}pub (\w+):/gm)].map(([, key]) => key));
}

/** What `infra/bin` takes. */
export function scriptsNamed({ files }, report) {
  const verbs = (name) => {
    const cases = (files.get(name) ?? "").match(/^case [\s\S]*?^esac/m)?.[0] ?? "";
    return [...cases.matchAll(/^ +([^*)\n]+)\)/gm)].flatMap(([, words]) => words.split("|")).map((word) => word.trim().replace(/'/g, ""));
  };
  const known = { "infra/bin/task": verbs("infra/bin/task"), "infra/bin/secrets": verbs("infra/bin/secrets") };
  for (const [file, text] of files) {
    if (!isProse(file)) continue;
    for (const [, script, rest] of text.matchAll(/(infra\/bin\/(?:task|secrets)) ([a-z][a-z -]*)/g)) {
      if (!known[script].some((verb) => rest === verb || rest.startsWith(`${verb} `))) report(file, `${script} ${rest.trim()}: it takes ${known[script].join(", ")}`);
    }
  }
}

/** Commands and flags of `insforge-cloud`, as clap has them in crates/server/src/cli.rs. */
export function commandsNamed({ files }, report) {
  const top = commands(fs.readFileSync(path.join(root, "crates/server/src/cli.rs"), "utf8"));
  for (const [file, text] of files) {
    if (!isProse(file)) continue;
    for (const [, line] of text.matchAll(/\binsforge-cloud ((?:[a-z][a-z-]*)(?: [^\n`|;&]*)?)/g)) {
      // Up to a comment; in README's list of all commands up to what they do.
      const words = line.split(/ {2,}|\s#|[,.;](?:\s|$)/)[0].trim().split(/\s+/);
      let here = top;
      let at = 0;
      while (here.verbs && at < words.length && /^[a-z]/.test(words[at])) {
        const named = words[at].split("|");
        const unknown = named.filter((name) => !here.verbs[name]);
        if (unknown.length > 0) {
          // A sentence may go on after the name of a group of commands.
          if (at === 0 || words[at].includes("-")) report(file, `insforge-cloud ${words.slice(0, at + 1).join(" ")}: there is no such command`);
          break;
        }
        here = here.verbs[named[0]];
        at += 1;
      }
      for (const [flag] of line.split(/\s#/)[0].matchAll(/(?<=[ [])--[a-z-]+/g)) {
        if (!["--help", "--config", "--data-dir"].includes(flag) && here.flags && !here.flags.has(flag)) {
          report(file, `insforge-cloud ${words.slice(0, at).join(" ")}: there is no ${flag}`);
        }
      }
    }
  }
}

const kebab = (name) => name.replace(/_/g, "-").replace(/(?<=[a-z0-9])[A-Z]/g, (letter) => `-${letter}`).toLowerCase();

function commands(source) {
  const bodies = {};
  for (const [, name, body] of source.matchAll(/^pub (?:enum|struct) (\w+) \{\n([\s\S]*?)^\}/gm)) bodies[name] = body;
  const flagsOf = (body) => {
    const flags = new Set();
    for (const [, attributes, field, type] of body.matchAll(/((?:^ +(?:\/\/\/.*|#\[[\s\S]*?\])\n)*)^ +(?:pub )?(\w+): ([\w:<>]+),/gm)) {
      const long = attributes.match(/#\[arg\([^)]*\blong(?: = "([\w-]+)")?/);
      if (long) flags.add(`--${long[1] ?? kebab(field)}`);
      if (attributes.includes("flatten") && bodies[type]) for (const flag of flagsOf(bodies[type])) flags.add(flag);
    }
    return flags;
  };
  const verbsOf = (name) => {
    const verbs = {};
    for (const [, attributes, variant, type, fields] of bodies[name].matchAll(
      /((?:^ {4}(?:\/\/\/.*|#\[[^\n]*\])\n)*)^ {4}(\w+)(?:\((\w+)\)| \{\n([\s\S]*?)^ {4}\})?,/gm,
    )) {
      const called = attributes.match(/name = "([\w-]+)"/)?.[1] ?? kebab(variant);
      if (attributes.includes("#[command(subcommand") && type) verbs[called] = { verbs: verbsOf(type) };
      else verbs[called] = { flags: flagsOf(fields ?? bodies[type] ?? "") };
    }
    // Options of their own kind: `Output` is a struct with one flag.
    return verbs;
  };
  return { verbs: verbsOf("Command") };
}

/** Values that people type are looked at before anything is made of them: here, or where a module takes them as they are. */
export function typedValues({ modules }, report) {
  for (const module of modules.values()) {
    if (!module.folder.includes("/examples/")) continue;
    for (const [name, { file, body }] of Object.entries(module.variables)) {
      if (body.validation || /bool/.test(body.type)) continue;
      const checked = Object.values(module.calls).some(({ body: call }) => {
        const callee = modules.get(path.normalize(path.join(module.folder, call.source)));
        return Object.entries(call).some(
          ([key, value]) => new RegExp(`\\bvar\\.${name}\\b`).test(JSON.stringify(value)) && callee?.variables[key]?.body.validation,
        );
      });
      if (!checked) report(file, `variable ${name} is checked by no validation, neither here nor in the module that takes it`);
    }
  }
}
