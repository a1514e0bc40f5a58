// What must hold whatever else changes: the things that nobody notices until it is too late.

import fs from "node:fs";
import path from "node:path";
import { WORLD, resourcesOf, root, texts } from "./files.mjs";

const first = (blocks) => (Array.isArray(blocks) ? blocks[0] : blocks) ?? {};

/** The Internet reaches ports 80 and 443, and nothing else: least of all 22 and 5432. */
export function doors({ modules }, report) {
  for (const { file, name, body } of resourcesOf(modules, "aws_vpc_security_group_ingress_rule")) {
    const open = WORLD.some((cidr) => texts([body.cidr_ipv4, body.cidr_ipv6]).includes(cidr));
    if (!open) continue;
    const ports = [body.from_port, body.to_port].every((port) => /each\.key/.test(port))
      ? (texts(body.for_each).join(" ").match(/\d+/g) ?? [])
      : [body.from_port, body.to_port].map(String);
    const bad = ports.filter((port) => !["80", "443"].includes(port));
    if (ports.length === 0 || bad.length > 0) {
      report(file, `${name} lets the whole Internet reach port ${bad.join(", ") || "?"}; only 80 and 443 may be open to it`);
    }
  }
  for (const type of ["aws_security_group", "aws_default_security_group"]) {
    for (const { file, name, body } of resourcesOf(modules, type)) {
      if (body.ingress || body.egress || body.dynamic) {
        report(file, `${type}.${name}: write rules as resources of their own (aws_vpc_security_group_ingress_rule), where they are checked`);
      }
    }
  }
  for (const { file, name } of resourcesOf(modules, "aws_security_group_rule")) {
    report(file, `aws_security_group_rule.${name}: use aws_vpc_security_group_ingress_rule, which is checked`);
  }
  for (const module of modules.values()) {
    const sources = module.variables.postgres_sources;
    if (!sources) continue;
    if (!Array.isArray(sources.body.default) || sources.body.default.length > 0) report(sources.file, "postgres_sources must be empty by default");
    if (!sources.body.validation) report(sources.file, "postgres_sources needs a validation that refuses the whole Internet");
  }
}

/** Version 2 of the metadata service: asked for by the image, by the worker's permissions, by what Terraform makes. */
export function metadataService({ modules, trees }, report) {
  for (const type of ["aws_instance", "aws_launch_template"]) {
    for (const { file, name, body } of resourcesOf(modules, type)) {
      if (first(body.metadata_options).http_tokens !== "required") report(file, `${type}.${name} must have metadata_options with http_tokens = "required"`);
    }
  }
  for (const { file, body } of resourcesOf(modules, "aws_ec2_instance_metadata_defaults")) {
    if (body.http_tokens !== "required") report(file, 'the region\'s defaults must have http_tokens = "required"');
  }
  for (const [file, source] of packerSources(trees)) {
    if (source.imds_support !== "v2.0") report(file, 'the image must have imds_support = "v2.0"');
    if (first(source.metadata_options).http_tokens !== "required") report(file, 'the build\'s machine must have metadata_options with http_tokens = "required"');
  }
  const launch = statementsOf(modules).filter(({ body }) => texts(body.actions).includes("ec2:RunInstances") && texts(body.resources).some((r) => r.includes(":instance/")));
  for (const { file, body } of launch) {
    const asked = (body.condition ?? []).some((c) => c.variable === "ec2:MetadataHttpTokens" && texts(c.values).includes("required"));
    if (!asked) report(file, `${body.sid ?? "RunInstances"}: launches must be asked for ec2:MetadataHttpTokens = required`);
  }
  if (launch.length === 0) report("infra/terraform/modules/identity", "nobody may launch machines");
}

const packerSources = (trees) =>
  [...trees].filter(([file]) => file.endsWith(".pkr.hcl")).flatMap(([file, tree]) => Object.values(tree.source?.["amazon-ebs"] ?? {}).map(([source]) => [file, source]));

/** Everything at rest is encrypted, and everything on its way to it. */
export function encryption({ modules, trees }, report) {
  for (const { file, name, body } of resourcesOf(modules, "aws_db_instance")) {
    const wanted = { storage_encrypted: true, publicly_accessible: false, manage_master_user_password: true, skip_final_snapshot: false };
    for (const [key, value] of Object.entries(wanted)) {
      if (body[key] !== value) report(file, `aws_db_instance.${name}: ${key} must be ${value}`);
    }
    for (const key of ["backup_retention_period", "deletion_protection"]) {
      if (!body[key]) report(file, `aws_db_instance.${name}: ${key} is missing or off`);
    }
    if (body.password) report(file, `aws_db_instance.${name}: a password would be in the state; RDS manages it`);
  }
  for (const { file, name, body } of resourcesOf(modules, "aws_db_parameter_group")) {
    const forced = (body.parameter ?? []).some((p) => p.name === "rds.force_ssl" && p.value === "1");
    if (!forced) report(file, `aws_db_parameter_group.${name}: rds.force_ssl must be 1`);
  }
  for (const { file, name, module } of resourcesOf(modules, "aws_s3_bucket")) checkBucket(module, name, (message) => report(file, message));
  for (const { file, name, body } of resourcesOf(modules, "aws_lb_listener")) {
    const action = first(body.default_action);
    if (body.protocol === "HTTPS" && !/TLS13/.test(body.ssl_policy ?? "")) report(file, `aws_lb_listener.${name}: ssl_policy must be one with TLS 1.2 and 1.3`);
    if (body.protocol === "HTTP" && action.type !== "redirect") report(file, `aws_lb_listener.${name}: HTTP may only lead to HTTPS`);
  }
  for (const [file, source] of packerSources(trees)) {
    const disks = source.launch_block_device_mappings ?? [];
    if (source.encrypt_boot !== true || disks.some((disk) => disk.encrypted !== true)) report(file, "the image must be encrypted: encrypt_boot, and encrypted on its disk");
  }
  const tested = texts([...modules.values()].flatMap((m) => Object.values(m.data).map((d) => d.body)));
  if (!tested.includes("ec2:Encrypted")) report("infra/terraform/modules/identity", "launches must be asked for ec2:Encrypted");
}

function checkBucket(module, name, report) {
  const companion = (type) => Object.values(module.resources).find((r) => r.type === type && texts(r.body.bucket).some((t) => t.includes(`aws_s3_bucket.${name}.`)));
  const block = companion("aws_s3_bucket_public_access_block")?.body;
  for (const key of ["block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets"]) {
    if (block?.[key] !== true) report(`aws_s3_bucket.${name}: ${key} must be true (aws_s3_bucket_public_access_block)`);
  }
  if (!companion("aws_s3_bucket_server_side_encryption_configuration")) report(`aws_s3_bucket.${name}: encryption is missing`);
  if (!companion("aws_s3_bucket_policy") || !texts(Object.values(module.data).map((d) => d.body)).includes("aws:SecureTransport")) {
    report(`aws_s3_bucket.${name}: a policy that refuses what does not come over TLS is missing`);
  }
  const rules = companion("aws_s3_bucket_lifecycle_configuration")?.body.rule ?? [];
  if (!rules.some((rule) => first(rule.abort_incomplete_multipart_upload).days_after_initiation === 1)) {
    report(`aws_s3_bucket.${name}: uploads that were begun and left must be aborted after a day`);
  }
}

const statementsOf = (modules) =>
  [...modules.values()].flatMap((module) =>
    Object.values(module.data)
      .filter((d) => d.type === "aws_iam_policy_document")
      .flatMap((d) => (d.body.statement ?? []).map((body) => ({ file: d.file, document: d.name, body }))),
  );

const provider = (folder) =>
  fs.readdirSync(path.join(root, "crates/provider/src", folder)).filter((name) => name.endsWith(".rs"))
    .map((name) => fs.readFileSync(path.join(root, "crates/provider/src", folder, name), "utf8")).join("\n");

/** What the worker does on EC2, and nothing else: every call goes through `Client::call`, which is told AWS's name for it. */
const CALLS = [...new Set([...provider("ec2").matchAll(/\bcall\(\s*"(\w+)"/g)].map(([, name]) => `ec2:${name}`))];
const LOOKS = CALLS.filter((action) => action.startsWith("ec2:Describe"));
/** Changes something: only with the tag. A launch gives tags, which AWS takes for a call of its own. */
const CHANGES = [...CALLS.filter((action) => !LOOKS.includes(action)), "ec2:CreateTags"];
/** Actions that AWS lets nobody narrow down to a resource. */
const UNSCOPED = ["ecr:GetAuthorizationToken", "ssm:UpdateInstanceInformation", /^ssmmessages:/, ...LOOKS];

/** What the worker does on S3: what `doctor` tries, action by action. */
const OBJECTS = [
  ...new Set(fs.readFileSync(path.join(root, "crates/provider/src/s3/permissions.rs"), "utf8").match(/\bs3:\w+/g)),
];

/** The right that a call of the S3 client needs, where it has another name. */
const RIGHTS = {
  CompleteMultipartUpload: "PutObject", CreateMultipartUpload: "PutObject", UploadPart: "PutObject", DeleteObjects: "DeleteObject",
  HeadObject: "GetObject", ListMultipartUploads: "ListBucketMultipartUploads", ListObjectsV2: "ListBucket", HeadBucket: "ListBucket",
};

/** No call of AWS, and what `dev` alone asks of its own store. */
const NO_RIGHTS = ["clone", "create_bucket"];

/** Nobody may do more than they need. */
export function permissions({ modules }, report) {
  const granted = new Set();
  if (!LOOKS.includes("ec2:DescribeInstances") || !CHANGES.includes("ec2:RunInstances")) {
    report("infra/check/rules.mjs", "no calls of EC2 were found in crates/provider/src/ec2; look for them as they are written now");
  }
  for (const [, call] of provider("s3").matchAll(/client\s*\.(\w+)\(\)/g)) {
    if (NO_RIGHTS.includes(call)) continue;
    const name = call.replace(/(?:^|_)(\w)/g, (_, letter) => letter.toUpperCase());
    const right = `s3:${RIGHTS[name] ?? name}`;
    if (!OBJECTS.includes(right)) report("crates/provider/src/s3/permissions.rs", `doctor does not try ${right}, which ${call} needs`);
  }
  for (const { file, document, body } of statementsOf(modules)) {
    if (body.effect === "Deny" || body.principals) continue;
    const where = `${document}.${body.sid ?? "statement"}`;
    const conditions = (body.condition ?? []).map((c) => c.variable);
    for (const action of texts(body.actions)) {
      if (action.includes("*")) report(file, `${where}: ${action} allows more than can be listed here; name the actions`);
      if (texts(body.resources).some((r) => r === "*" || /"\*"/.test(r)) && !UNSCOPED.some((known) => (known.test ? known.test(action) : known === action))) {
        report(file, `${where}: ${action} on every resource`);
      }
      if (!/^(ec2|s3):/.test(action)) continue;
      granted.add(action);
      if (action.startsWith("s3:")) {
        if (!OBJECTS.includes(action)) report(file, `${where}: the worker does not need ${action}`);
        continue;
      }
      if (!LOOKS.includes(action) && !CHANGES.includes(action)) report(file, `${where}: the worker does not need ${action}`);
      const tagged = conditions.some((c) => /^aws:(Request|Resource)Tag\//.test(c));
      if (CHANGES.includes(action) && action !== "ec2:RunInstances" && !tagged) report(file, `${where}: ${action} must ask for the deployment's tag`);
      if (action === "ec2:CreateTags" && !conditions.includes("ec2:CreateAction")) report(file, `${where}: ec2:CreateTags only while something is made (ec2:CreateAction)`);
    }
    if (texts(body.actions).includes("iam:PassRole") && !conditions.includes("iam:PassedToService")) {
      report(file, `${where}: iam:PassRole must say to which service (iam:PassedToService)`);
    }
  }
  for (const action of [...LOOKS, ...CHANGES, ...OBJECTS]) {
    if (!granted.has(action)) report("infra/terraform/modules/identity", `the worker lacks ${action}`);
  }
}

/** No secret in the state, and nothing kept for ever by accident. */
export function keeping({ modules, files }, report) {
  for (const type of ["aws_secretsmanager_secret_version", "random_password", "aws_ssm_parameter", "tls_private_key"]) {
    for (const { file, name } of resourcesOf(modules, type)) report(file, `${type}.${name} would put a secret into the state`);
  }
  for (const { file, name, body } of resourcesOf(modules, "aws_cloudwatch_log_group")) {
    if (body.retention_in_days === undefined) report(file, `aws_cloudwatch_log_group.${name} keeps its log for ever: set retention_in_days`);
  }
  for (const [file, text] of files) {
    const latest = text.includes(":latest") && text.match(/[\w./-]+:latest\b(?!")/);
    if (latest && !file.endsWith(".md")) report(file, `${latest[0]} means something else every week: name a version`);
  }
}

/** Containers of docker compose: named versions, no rights to spare, known secrets and neighbours. */
export function compose({ trees }, report) {
  for (const [file, tree] of trees) {
    if (!tree.services) continue;
    for (const [name, service] of Object.entries(tree.services)) {
      const say = (message) => report(file, `service ${name}: ${message}`);
      if (service.privileged) say("privileged");
      if (!service.image && !service.build) say("neither image nor build");
      if (!(service.security_opt ?? []).includes("no-new-privileges:true")) say("security_opt: no-new-privileges:true is missing");
      if (!service.read_only) say("read_only is missing");
      const once = service.restart === "no" || service.restart === false;
      if (!service.restart) say("restart is missing");
      if (!once && !service.healthcheck) say("healthcheck is missing");
      for (const other of Object.keys(service.depends_on ?? {})) if (!tree.services[other]) say(`depends on ${other}, which is not there`);
      for (const secret of service.secrets ?? []) if (!tree.secrets?.[secret.source ?? secret]) say(`there is no secret ${secret.source ?? secret}`);
      for (const network of service.networks ?? []) if (!tree.networks || !(network in tree.networks)) say(`there is no network ${network}`);
      for (const volume of service.volumes ?? []) {
        const source = typeof volume === "string" ? volume.split(":")[0] : volume.source;
        if (/^[a-z]/.test(source) && !(tree.volumes && source in tree.volumes)) say(`there is no volume ${source}`);
      }
      for (const [key, value] of Object.entries(service.environment ?? {})) {
        if (/(PASSWORD|SECRET|KEY|TOKEN)$/.test(key) && value) say(`${key} is a secret in the environment; use a file (${key}_FILE)`);
      }
    }
  }
}

/** The Dockerfile: nobody in particular runs it, and it says whether it is well. */
export function dockerfile({ files }, report) {
  for (const [file, text] of files) {
    if (path.basename(file) !== "Dockerfile") continue;
    const stages = text.split(/^FROM /m).slice(1);
    const users = [...stages.at(-1).matchAll(/^USER (\S+)/gm)].map(([, user]) => user);
    if (users.length === 0 || /^(0|root)\b/.test(users.at(-1))) report(file, "the last stage must end as a user who is not root");
    if (!/^HEALTHCHECK /m.test(stages.at(-1))) report(file, "the last stage needs a HEALTHCHECK");
    for (const [, image] of text.matchAll(/^FROM (?:--\S+ )*(\S+)/gm)) {
      const own = [...text.matchAll(/ AS (\w+)$/gim)].map(([, name]) => name);
      if (!own.includes(image) && image !== "scratch" && !/[:@]/.test(image)) report(file, `FROM ${image} names no version`);
    }
  }
}

/** `insforge-cloud` refuses keys that it does not know, so a mistake here would keep it from starting. */
export function configurationKeys({ files }, report) {
  const config = fs.readFileSync(path.join(root, "crates/server/src/config.rs"), "utf8");
  const sections = ["sections", "aws", "objects"]
    .map((name) => fs.readFileSync(path.join(root, `crates/server/src/config/${name}.rs`), "utf8"))
    .join("\n");
  const short = fs.readFileSync(path.join(root, "crates/server/src/config/environment.rs"), "utf8");
  const known = new Set([...short.matchAll(/"(INSFORGE_\w+)"/g)].map(([, name]) => name).concat("INSFORGE_CONFIG"));
  const names = {};
  for (const [, section, struct] of config.matchAll(/pub (\w+): (?:sections|aws|objects)::(\w+)/g)) {
    names[section] = true;
    const body = sections.match(new RegExp(`pub struct ${struct} \\{\\n([\\s\\S]*?)\\n\\}`))?.[1] ?? "";
    for (const [, key] of body.matchAll(/^ {4}pub (\w+):/gm)) known.add(`INSFORGE_${section}_${key}`.toUpperCase());
  }
  for (const [file, text] of files) {
    if (file.startsWith("infra/bin/") || file === "scripts/check-infra") continue;
    for (const [name] of text.matchAll(/INSFORGE_[A-Z0-9]+_[A-Z0-9_]+/g)) {
      const [, section, key] = name.toLowerCase().match(/^insforge_([a-z0-9]+)_(.+)$/);
      if (known.has(name)) continue;
      if (!names[section] && (file.includes("/docker/compose") || file.endsWith(".md"))) continue; // compose's own, or a test's
      report(file, `${name}: insforge-cloud has no key ${section}.${key}`);
    }
  }
}
