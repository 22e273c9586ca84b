import { connect } from "./base.js";
import { live } from "./live.js";
import { terminal } from "./term.js";

live();
terminal();
connect();
