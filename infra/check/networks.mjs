// The control plane's network and the machines' are connected, for branches, and tenants' code runs on machines: workers
// reach Postgres there, and nothing from there gets in. Why that follows from what is checked here: infra/README.md.

import { WORLD, calleeOf, resourcesOf, texts, unwrapped } from "./files.mjs";

const MODULES = "infra/terraform/modules";
const PEERING = `${MODULES}/peering`;

/** The one group that may let in address ranges (workers, offices, a VPN), as two modules name it. */
const MACHINES = { [`${MODULES}/machines`]: "aws_security_group.machine.id", [PEERING]: "var.machines.security_group_id" };

const callsOf = (modules, folder) =>
  [...modules.values()].flatMap((module) =>
    Object.entries(module.calls)
      .filter(([, { body }]) => calleeOf(modules, module, body)?.folder === folder)
      .map(([name, { file, body }]) => ({ file, name, body, module })),
  );

/** Machines' group and load balancers let in address ranges. All others let in groups, the database the tasks' alone. */
export function groups({ modules }, report) {
  for (const { file, name, body, module } of resourcesOf(modules, "aws_vpc_security_group_ingress_rule")) {
    if (body.referenced_security_group_id) continue;
    const group = unwrapped(body.security_group_id);
    const web = WORLD.includes(body.cidr_ipv4 ?? body.cidr_ipv6) && group === "aws_security_group.balancer.id";
    if (!web && group !== MACHINES[module.folder]) report(file, `${name} lets an address range into ${group}; let in a group`);
  }
  for (const { file, body } of callsOf(modules, `${MODULES}/database`)) {
    for (const client of Object.values(body.clients)) {
      if (client !== "${module.services.tasks_security_group_id}") report(file, `the database lets in ${client}; tasks alone may connect to it`);
    }
  }
}

/** Peering leads from workers' route tables to machines' subnets and back, and lets workers reach Postgres. */
export function peering({ modules }, report) {
  for (const { file, name, body, module } of resourcesOf(modules, "aws_route")) {
    if (!body.vpc_peering_connection_id) continue;
    const [from, to] = body.provider ? ["machines", "workers"] : ["workers", "machines"];
    const ways = texts(module.locals[unwrapped(body.for_each ?? "").replace("local.", "")]?.body).join(" ");
    const straight =
      ways.includes(`setproduct(keys(var.${from}.route_table_ids), var.${to}.subnet_cidrs)`) &&
      ways.includes(`table = var.${from}.route_table_ids[pair[0]], cidr = pair[1]`) &&
      body.route_table_id === "${each.value.table}" && body.destination_cidr_block === "${each.value.cidr}";
    if (module.folder !== PEERING || !straight) report(file, `aws_route.${name}: peering leads from ${from}' route tables to ${to}' subnets, and nowhere else`);
    if (!body.vpc_peering_connection_id.includes("_accepter.")) report(file, `aws_route.${name} must wait until the connection is accepted`);
  }
  for (const { file, name, body, module } of resourcesOf(modules, "aws_vpc_security_group_ingress_rule")) {
    if (module.folder !== PEERING) continue;
    const workers = body.for_each === "${toset(var.workers.subnet_cidrs)}" && body.cidr_ipv4 === "${each.key}";
    const postgres = body.ip_protocol === "tcp" && body.from_port === 5432 && body.to_port === 5432;
    if (!workers || !postgres) report(file, `${name} must let in workers' subnets on port 5432, and nothing else`);
  }
}

/** What peering is given: subnets where workers and machines run, with their route tables, and never the database's. */
export function sides({ modules }, report) {
  const put = (folder, output) => modules.get(`${MODULES}/${folder}`)?.outputs[output] ?? { file: `${MODULES}/${folder}`, body: {} };
  const wanted = [
    [put("network", "private"), "subnet_cidrs", "${[for zone in local.zones : aws_subnet.private[zone].cidr_block]}"],
    [put("network", "private"), "route_table_ids", "${{ for zone, table in aws_route_table.private : zone => table.id }}"],
    [put("machines", "peering"), "subnet_cidrs", "${local.subnet_cidrs}"],
    [put("machines", "peering"), "route_table_ids", "${local.route_table_ids}"],
  ];
  for (const [{ file, body }, part, value] of wanted) {
    if (body.value?.[part] !== value) report(file, `${part} of what peering is given must be ${value}`);
  }
  for (const { file, body, module } of callsOf(modules, PEERING)) {
    // In the region of the module that each side comes from.
    for (const [side, alias] of [["workers", "aws"], ["machines", "aws.machines"]]) {
      const from = texts(body[side]).join(" ").match(/\bmodule\.(\w+)\.(?:private|peering)\b/)?.[1];
      const provider = module.calls[from]?.body.providers?.aws ?? "${aws}";
      if (from && body.providers?.[alias] !== provider) report(file, `peering: ${alias} must be ${provider}, the provider of ${from}`);
    }
  }
  for (const { file, name, module } of callsOf(modules, `${MODULES}/machines`)) {
    const led = callsOf(modules, PEERING).some((call) => call.module === module && call.body.machines === `\${module.${name}.peering}`);
    if (!led) report(file, `no module peering leads to ${name}: its projects could have no branches`);
  }
}

/** Networks that are connected have addresses of their own. */
export function ranges({ modules }, report) {
  const workers = modules.get(PEERING)?.variables.workers;
  const compared = texts(workers?.body.validation).some((text) => text.includes("!= var.machines.cidr"));
  if (!compared) report(workers?.file ?? PEERING, "workers needs a validation that refuses the machines' own range");
  for (const module of modules.values()) {
    const calls = [...callsOf(modules, `${MODULES}/network`), ...callsOf(modules, `${MODULES}/machines`)].filter((call) => call.module === module);
    if (calls.length < 2) continue; // one of its own, or of somebody else's
    for (const { file, name, body } of calls) {
      const typed = module.variables[body.cidr.match(/^\$\{var\.(\w+)\.\w+\}$/)?.[1]];
      const distinct = texts(typed?.body.validation).some((text) => text.includes("distinct("));
      if (!distinct) report(file, `module ${name}: cidr must be one of a variable whose validation refuses the same range twice`);
    }
  }
}
