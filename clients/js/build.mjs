// Makes what is in the package beside the files here: the client as the server has it, byte for byte, and its types as its comments say them.
import { execFile } from "node:child_process";
import { copyFile, mkdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));
const source = join(here, "../../src/control/console/stentor.js");
const dist = join(here, "dist");

await rm(dist, { recursive: true, force: true });
await mkdir(dist, { recursive: true });
await copyFile(source, join(dist, "stentor.js"));
// The compiler that is installed here, or that TSC names.
const compiler = process.env.TSC ?? join(here, "node_modules/typescript/bin/tsc");
const types = ["--declaration", "--emitDeclarationOnly", "--allowJs", "--checkJs", "--strict", "--target", "es2023", "--module", "es2022", "--lib", "es2023,dom,dom.iterable"];
await promisify(execFile)(process.execPath, [compiler, ...types, "--outDir", dist, join(dist, "stentor.js")]).catch((error) => {
  throw new Error(`no types could be made by ${compiler}: ${error.stdout || error.message}`);
});
