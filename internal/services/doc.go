// Package services makes systemd units of what the manifests of modules say of services, and drives them.
//
// It promises that no field of a manifest, whatever it holds, adds a directive, a section or another
// unit: what can't be written so that systemd takes it literally is refused. A module whose services can't be
// made as its manifest asks is refused with the reason, never run with less protection than it names, and keeps no other
// module back. It touches no unit file that isn't its own, and none outside of /run: an administrator's word in /etc
// goes before it.
//
// Making units (Make, MakeAll) is pure. Place writes them, Control has systemd act on them, Check and Refresh are
// what the helper units of a service run: its health check, and the addresses of the names that it may connect to.
//
// # Units
//
//	powernode-MODULE_SERVICE.service          a service
//	powernode-MODULE_SERVICE.health.service   one health check of it, which its .timer starts again and again
//	powernode-MODULE_SERVICE.ready.service    active once the service was found healthy; what requires_health waits for
//	powernode-MODULE_SERVICE.egress.service   resolves the names of egress_allow, again by its .timer
//	powernode-MODULE.init.service             the older form, lines of a shell; only where there are no services
//
// Neither the name of a module nor that of a service has an underscore or a dot, so no two of these are the same. With a
// hyphen in between, service "c" of module "a-b" and service "b-c" of module "a" would be.
//
// It trusts systemd and its private socket, the module's signature for what its author asks for, and the trust policy
// for who may ask for everything.
package services
