output "project" {
  description = "The project's number: for TF_HTTP_ADDRESS and for the notes of merge requests."
  value       = gitlab_project.this.id
}
