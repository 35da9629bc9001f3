"""Which test shows that an option has its effect on a running daemon: one line an option.

Whoever builds an option replaces its ``TO_DO`` (allowed only while it is declared ``built=False``) by the test's id.
"""

from __future__ import annotations

from collections.abc import Mapping

TO_DO = "to do"

_ONE = "tests/options/test_one_daemon.py::"
_ROLES = "tests/options/test_roles.py::"
_API = "tests/e2e/test_api_options.py::"
_METRICS = "tests/metrics/test_options.py::"
_ADDRESS = f"{_ONE}test_worker_ip_and_worker_port_are_where_it_is_reached"
_ENDS = f"{_ONE}test_engines_live_where_options_say_and_end_when_they_say"
_FETCHED = f"{_ONE}test_cache_dir_holds_what_is_fetched_with_huggingface_token_in_the_ranges_of_hf_transfer"
_TOOLS = f"{_ONE}test_tools_download_base_url_is_fetched_from_and_bin_dir_holds_it"
_LISTENS = f"{_ONE}test_host_and_port_are_where_it_listens"
_SILENT = f"{_ONE}test_heartbeat_timeout_and_reschedule_grace_judge_who_is_silent"
_TLS = f"{_ROLES}test_ssl_keyfile_and_ssl_certfile_make_it_speak_tls"
_CORS = f"{_API}test_a_browser_that_asks_beforehand_is_told_what_is_allowed"
_EXPORTERS = f"{_METRICS}test_metrics_port_and_worker_metrics_port_say_where_the_exporters_listen"

PROOFS: Mapping[str, str] = {
    "config_file": f"{_ROLES}test_config_file_names_where_the_other_options_are",
    "debug": f"{_ONE}test_debug_logs_more",
    "data_dir": f"{_ONE}test_data_dir_holds_the_identity",
    "cache_dir": _FETCHED,
    "token": f"{_ONE}test_token_lets_workers_join_and_no_other_does",
    "huggingface_token": _FETCHED,
    "enable_ray": TO_DO,
    "ray_args": TO_DO,
    "ray_node_manager_port": TO_DO,
    "ray_object_manager_port": TO_DO,
    "ray_runtime_env_agent_port": TO_DO,
    "ray_dashboard_agent_grpc_port": TO_DO,
    "ray_dashboard_agent_listen_port": TO_DO,
    "ray_metrics_export_port": TO_DO,
    "heartbeat_interval": f"{_ONE}test_heartbeat_interval_is_told_to_who_joins",
    "drain_timeout": _ENDS,
    "reload_drain_timeout": _ENDS,
    "bin_dir": _TOOLS,
    "pipx_path": TO_DO,
    "host": _LISTENS,
    "port": _LISTENS,
    "metrics_port": _EXPORTERS,
    "disable_metrics": f"{_METRICS}test_disable_metrics_leaves_only_the_workers",
    "disable_worker": f"{_ROLES}test_disable_worker_leaves_a_server_alone",
    "bootstrap_password": f"{_ONE}test_bootstrap_password_is_the_first_of_admin",
    "database_url": f"{_ONE}test_database_url_names_the_file_of_the_records",
    "ssl_keyfile": _TLS,
    "ssl_certfile": _TLS,
    "force_auth_localhost": f"{_ONE}test_force_auth_localhost_leaves_no_caller_unasked",
    "disable_update_check": f"{_API}test_without_the_options_nobody_else_may_read_and_nobody_is_asked",
    "disable_openapi_docs": f"{_API}test_the_documentation_is_not_served",
    "model_catalog_file": f"{_API}test_the_catalog_is_the_one_that_was_named",
    "ray_port": TO_DO,
    "ray_client_server_port": TO_DO,
    "ray_dashboard_port": TO_DO,
    "enable_cors": _CORS,
    "allow_credentials": _CORS,
    "allow_origins": _CORS,
    "allow_methods": _CORS,
    "allow_headers": _CORS,
    "oidc_issuer": TO_DO,
    "oidc_client_id": TO_DO,
    "oidc_client_secret": TO_DO,
    "oidc_redirect_uri": TO_DO,
    "saml_idp_server_url": TO_DO,
    "saml_idp_entity_id": TO_DO,
    "saml_idp_x509_cert": TO_DO,
    "saml_sp_entity_id": TO_DO,
    "saml_sp_acs_url": TO_DO,
    "saml_sp_x509_cert": TO_DO,
    "saml_sp_private_key": TO_DO,
    "saml_sp_attribute_prefix": TO_DO,
    "saml_security": TO_DO,
    "external_auth_name": TO_DO,
    "external_auth_full_name": TO_DO,
    "external_auth_avatar_url": TO_DO,
    "external_auth_groups": TO_DO,
    "external_auth_admin_groups": TO_DO,
    "heartbeat_timeout": _SILENT,
    "reschedule_grace": _SILENT,
    "ollama_library_base_url": TO_DO,
    "update_check_url": f"{_API}test_a_new_version_is_heard_of",
    "jwt_secret_key": f"{_ONE}test_jwt_secret_key_is_used_and_none_is_made",
    "external_auth_type": TO_DO,
    "openid_configuration": TO_DO,
    "server_url": f"{_ROLES}test_a_worker_joins_the_server_that_server_url_names_however_it_is_spelt",
    "worker_name": f"{_ONE}test_worker_name_is_the_name_of_its_record",
    "worker_ip": _ADDRESS,
    "disable_worker_metrics": f"{_METRICS}test_disable_worker_metrics_leaves_only_the_servers",
    "disable_rpc_servers": TO_DO,
    "worker_metrics_port": _EXPORTERS,
    "worker_port": _ADDRESS,
    "service_port_range": _ENDS,
    "rpc_server_port_range": TO_DO,
    "ray_worker_port_range": TO_DO,
    "log_dir": _ENDS,
    "rpc_server_args": TO_DO,
    "system_reserved": f"{_ONE}test_system_reserved_is_left_to_the_system",
    "tools_download_base_url": _TOOLS,
    "enable_hf_transfer": _FETCHED,
    "enable_hf_xet": f"{_ONE}test_enable_hf_xet_fetches_by_xet_what_the_hub_keeps_there",
    "engine_stop_grace": _ENDS,
    "llama_server_path": f"{_ONE}test_llama_server_path_is_the_first_build",
    "resources": f"{_ONE}test_resources_are_believed",
}
