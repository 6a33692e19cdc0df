output "address" {
  description = "The server's public IPv4 address; null until it is there."
  value       = try(contabo_instance.this.ip_config[0].v4[0].ip, null)
}

output "cloud_init" {
  description = "What the server was installed with."
  value       = local.cloud_init
}
