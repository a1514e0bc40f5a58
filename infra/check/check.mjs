// Checks infra/ as far as that goes without AWS. Run by scripts/check-infra, which also looks at the shell scripts.

import { spawnSync } from "node:child_process";
import { format } from "@cdktf/hcl-tools";
import { model, readFiles, root } from "./files.mjs";
import * as terraform from "./terraform.mjs";
import * as rules from "./rules.mjs";
import * as networks from "./networks.mjs";
import * as documents from "./documents.mjs";
import { breakages } from "./breakages.mjs";

const checks = { ...terraform, ...rules, ...networks, ...documents };

async function findings(files) {
  const found = [];
  const report = (file, message) => found.push(`${file}: ${message}`);
  const seen = await model(files, report);
  if (found.length === 0) for (const check of Object.values(checks)) check(seen, report);
  return [...new Set(found)];
}

/** Terraform's own formatter where there is one; else HashiCorp's, compiled for here. */
async function unformatted(files) {
  const environment = { ...process.env, TF_CLI_CONFIG_FILE: "", CHECKPOINT_DISABLE: "1" };
  const terraform = (args, input) => spawnSync("terraform", args, { input, encoding: "utf8", env: environment, cwd: root });
  const own = terraform(["version"]).status === 0;
  const found = [];
  const differs = (name, rest) => found.push(`${name}: not formatted; run:  terraform fmt -recursive infra${rest}`);
  if (own) {
    for (const name of terraform(["fmt", "-check", "-recursive", "infra"]).stdout.split("\n").filter(Boolean)) differs(name, "");
  }
  for (const [name, text] of files) {
    // Those that Terraform does not take for its own, it takes from standard input.
    if (!/\.(tf|tfvars|hcl)(\.example)?$/.test(name) || (own && /\.(tf|tfvars|tftest\.hcl)$/.test(name))) continue;
    const formatted = own ? terraform(["fmt", "-"], text).stdout : await format(text);
    if (formatted !== text) differs(name, ` (${difference(text, formatted)})`);
  }
  return { found, by: own ? "terraform fmt" : "hclwrite" };
}

function difference(is, should) {
  const [a, b] = [is.split("\n"), should.split("\n")];
  const at = a.findIndex((line, index) => line !== b[index]);
  return `line ${at + 1}: ${JSON.stringify(a[at])}, not ${JSON.stringify(b[at])}`;
}

/** Each rule is tried on a copy that breaks it: a check that cannot fail checks nothing. */
async function unnoticed(files) {
  const missed = [];
  for (const { what, file, from, to, says } of breakages) {
    const text = files.get(file);
    const broken = text?.replace(from, to);
    if (text === undefined || broken === text) {
      missed.push(`infra/check/breakages.mjs: "${what}" changes nothing in ${file} any more`);
      continue;
    }
    const found = await findings(new Map(files).set(file, broken));
    if (!found.some((finding) => says.test(finding))) missed.push(`infra/check: nobody noticed: ${what} (found: ${found.join("; ") || "nothing"})`);
  }
  return missed;
}

const files = readFiles();
const formatting = await unformatted(files);
const found = [...(await findings(files)), ...formatting.found];
if (found.length === 0) found.push(...(await unnoticed(files)));
for (const line of found) console.error(line);
if (found.length === 0) {
  const count = [...files.keys()].filter((name) => /\.(tf|hcl|tfvars|ya?ml)(\.example)?$/.test(name)).length;
  console.log(`infra: ${count} files of HCL and YAML, ${Object.keys(checks).length} rules, each of ${breakages.length} breakages noticed, formatted as ${formatting.by} has it`);
}
process.exit(found.length === 0 ? 0 : 1); // the parser's runtime would keep us
