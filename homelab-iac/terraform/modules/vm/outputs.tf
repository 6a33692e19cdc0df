output "cloud_init" {
  description = "What the machine is installed with."
  value       = local.cloud_init
}
