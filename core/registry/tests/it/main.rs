//! The registry server and the client of `oci`, over real connections: against each other, against
//! Debian's `docker-registry`, against Docker, and through servers and connections that fail on purpose.

#[cfg(test)]
mod budget;
#[cfg(test)]
mod child;
#[cfg(test)]
mod chunks;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod fault_properties;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod faulty;
#[cfg(test)]
mod image;
#[cfg(test)]
mod own;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod real_docker_engine;
#[cfg(test)]
mod real_docker_registry;
#[cfg(test)]
mod server;
#[cfg(test)]
mod shared;
#[cfg(test)]
mod tokens;
