"""Which test shows that an option or a variable has its effect: one line each.

Whoever builds one replaces its ``TO_DO`` (allowed only while it is declared ``built=False``) by the test's id, and
runs ``make docs``. The test of an option takes it in each of its spellings and looks at a running daemon from outside.
"""

from __future__ import annotations

from collections.abc import Mapping

TO_DO = "to do"

_ONE = "tests/options/test_one_daemon.py::"
_ROLES = "tests/options/test_roles.py::"
_API = "tests/e2e/test_api_options.py::"
_MACHINES = "tests/e2e/test_machines.py::"
_LEAVES = f"{_MACHINES}test_leave_empties_a_worker_first_and_leave_timeout_is_how_long_that_may_take"
_METRICS = "tests/metrics/test_options.py::"
_ADDRESS = f"{_ONE}test_worker_ip_and_worker_port_are_where_it_is_reached"
_ENDS = f"{_ONE}test_engines_live_where_options_say_and_end_when_they_say"
_FETCHED = f"{_ONE}test_cache_dir_holds_what_is_fetched_with_huggingface_token_in_the_ranges_of_hf_transfer"
_TOOLS = f"{_ONE}test_tools_download_base_url_is_fetched_from_and_bin_dir_holds_it"
_LISTENS = f"{_ONE}test_host_and_port_are_where_it_listens"
_SILENT = f"{_ONE}test_heartbeat_timeout_and_reschedule_grace_judge_who_is_silent"
_ALONE = f"{_ROLES}test_disable_worker_leaves_a_server_alone_and_disable_update_check_asks_nobody"
_TLS = f"{_ROLES}test_ssl_keyfile_and_ssl_certfile_make_it_speak_tls"
_CORS = f"{_API}test_a_browser_that_asks_beforehand_is_told_what_is_allowed"
_POOL = (
    "tests/e2e/test_databases.py"
    "::test_the_variables_of_the_database_bound_the_connections_and_show_the_statements"
)
_PROXY = "tests/options/test_proxy.py::"
_VARIABLES = "tests/options/test_variables.py::"
_MODELSCOPE = f"{_VARIABLES}test_the_variables_of_modelscope_say_where_it_is_asked_and_as_whom"
_TOOLS_OF = "tests/cli/test_download_tools.py::"
_MINDIE = "tests/options/test_mindie.py::"
_CANN = f"{_MINDIE}test_cann_version_and_cann_chip_stand_in_for_what_would_be_found"
_VERDICTS = "tests/api/test_model_evaluations.py::test_no_more_verdicts_are_kept_than_wanted"
_ENGINES = "tests/options/test_engines.py::"
_SIGN_ON = "tests/options/test_sign_on.py::"
_SAML = "tests/options/test_saml.py::"
_OIDC = f"{_SIGN_ON}test_oidc_options_let_people_sign_in_at_the_issuer"
_CLAIMS = f"{_SIGN_ON}test_external_auth_options_say_which_claims_make_the_account"
_GROUPS = f"{_SIGN_ON}test_external_auth_groups_and_admin_groups_give_the_role"
_RPC = "tests/options/test_rpc.py::"
_RAY = "tests/options/test_ray.py::"
_RAY_HEAD = f"{_RAY}test_enable_ray_runs_a_head_whose_nine_ports_are_those_of_the_options"
_EXPORTERS = f"{_METRICS}test_metrics_port_and_worker_metrics_port_say_where_the_exporters_listen"

PROOFS: Mapping[str, str] = {
    "config_file": f"{_ROLES}test_config_file_names_where_the_other_options_are",
    "debug": f"{_ONE}test_debug_logs_more",
    "data_dir": f"{_ONE}test_data_dir_holds_the_identity",
    "cache_dir": _FETCHED,
    "token": f"{_ONE}test_token_lets_workers_join_and_no_other_does",
    "huggingface_token": _FETCHED,
    "enable_ray": _RAY_HEAD,
    "ray_args": f"{_RAY}test_ray_args_come_last",
    "ray_node_manager_port": _RAY_HEAD,
    "ray_object_manager_port": _RAY_HEAD,
    "ray_runtime_env_agent_port": _RAY_HEAD,
    "ray_dashboard_agent_grpc_port": _RAY_HEAD,
    "ray_dashboard_agent_listen_port": _RAY_HEAD,
    "ray_metrics_export_port": _RAY_HEAD,
    "heartbeat_interval": f"{_ONE}test_heartbeat_interval_is_told_to_who_joins",
    "drain_timeout": _ENDS,
    "reload_drain_timeout": _ENDS,
    "bin_dir": _TOOLS,
    "pipx_path": f"{_ENGINES}test_pipx_path_installs_the_version_that_a_deployment_names",
    "ollama_library_base_url": f"{_ONE}test_ollama_library_base_url_is_where_its_models_are_fetched_from",
    "host": _LISTENS,
    "port": _LISTENS,
    "metrics_port": _EXPORTERS,
    "disable_metrics": f"{_METRICS}test_disable_metrics_leaves_only_the_workers",
    "disable_worker": _ALONE,
    "bootstrap_password": f"{_ONE}test_bootstrap_password_is_the_first_of_admin",
    "database_url": "tests/e2e/test_databases.py::test_database_url_names_the_database_of_the_records",
    "advertise_url": f"{_ONE}test_advertise_url_is_where_workers_reach_it",
    "ssl_keyfile": _TLS,
    "ssl_certfile": _TLS,
    "force_auth_localhost": f"{_ONE}test_force_auth_localhost_leaves_no_caller_unasked",
    "disable_update_check": _ALONE,
    "disable_openapi_docs": f"{_API}test_the_documentation_is_not_served",
    "model_catalog_file": f"{_API}test_the_catalog_is_the_one_that_was_named",
    "ray_port": _RAY_HEAD,
    "ray_client_server_port": _RAY_HEAD,
    "ray_dashboard_port": _RAY_HEAD,
    "enable_cors": _CORS,
    "allow_credentials": _CORS,
    "allow_origins": _CORS,
    "allow_methods": _CORS,
    "allow_headers": _CORS,
    "oidc_issuer": _OIDC,
    "oidc_client_id": _OIDC,
    "oidc_client_secret": _OIDC,
    "oidc_redirect_uri": _OIDC,
    "saml_idp_server_url": f"{_SAML}test_saml_idp_options_say_by_whom_people_sign_in",
    "saml_idp_entity_id": f"{_SAML}test_saml_idp_options_say_by_whom_people_sign_in",
    "saml_idp_x509_cert": f"{_SAML}test_saml_idp_options_say_by_whom_people_sign_in",
    "saml_sp_entity_id": f"{_SAML}test_saml_sp_options_are_what_the_provider_reads_of_us",
    "saml_sp_acs_url": f"{_SAML}test_saml_sp_options_are_what_the_provider_reads_of_us",
    "saml_sp_x509_cert": f"{_SAML}test_saml_sp_options_are_what_the_provider_reads_of_us",
    "saml_sp_private_key": f"{_SAML}test_saml_sp_private_key_signs_requests_and_reads_encrypted_assertions",
    "saml_sp_attribute_prefix": f"{_SAML}test_saml_sp_attribute_prefix_finds_attributes",
    "saml_security": f"{_SAML}test_saml_security_says_what_is_asked_of_answers",
    "external_auth_name": _CLAIMS,
    "external_auth_full_name": _CLAIMS,
    "external_auth_avatar_url": _CLAIMS,
    "external_auth_groups": _GROUPS,
    "external_auth_admin_groups": _GROUPS,
    "heartbeat_timeout": _SILENT,
    "reschedule_grace": _SILENT,
    "stopped_worker_grace": f"{_MACHINES}test_stopped_worker_grace_is_how_long_a_stopped_worker_keeps_its_places",
    "audit_retention_days": f"{_ONE}test_audit_retention_days_is_how_long_the_trail_is_kept",
    "update_check_url": f"{_API}test_a_new_version_is_heard_of",
    "jwt_secret_key": f"{_ONE}test_jwt_secret_key_is_used_and_none_is_made",
    "external_auth_type": f"{_SIGN_ON}test_external_auth_type_chooses_between_two",
    "openid_configuration": f"{_SIGN_ON}test_openid_configuration_is_used_in_place_of_what_the_issuer_publishes",
    "server_url": f"{_ROLES}test_a_worker_joins_the_server_that_server_url_names",
    "worker_name": f"{_ONE}test_worker_name_is_the_name_of_its_record",
    "worker_ip": _ADDRESS,
    "disable_worker_metrics": f"{_METRICS}test_disable_worker_metrics_leaves_only_the_servers",
    "disable_rpc_servers": f"{_RPC}test_disable_rpc_servers_keeps_the_devices_of_a_worker_for_itself",
    "worker_metrics_port": _EXPORTERS,
    "worker_port": _ADDRESS,
    "service_port_range": _ENDS,
    "rpc_server_port_range": f"{_RPC}test_rpc_servers_listen_in_their_range_with_the_arguments_that_were_given",
    "ray_worker_port_range": f"{_RAY}test_ray_worker_port_range_is_given_to_ray_but_for_two_ports_of_its_own_numbers",
    "log_dir": _ENDS,
    "rpc_server_args": f"{_RPC}test_rpc_servers_listen_in_their_range_with_the_arguments_that_were_given",
    "system_reserved": f"{_ONE}test_system_reserved_is_left_to_the_system",
    "tools_download_base_url": _TOOLS,
    "enable_hf_transfer": _FETCHED,
    "enable_hf_xet": f"{_ONE}test_enable_hf_xet_fetches_by_xet_what_the_hub_keeps_there",
    "evict_unused_files": f"{_VARIABLES}test_evict_unused_files_has_the_worker_look_for_room_by_itself",
    "leave": _LEAVES,
    "leave_timeout": _LEAVES,
    "engine_stop_grace": _ENDS,
    "llama_server_path": f"{_ONE}test_llama_server_path_is_the_first_build",
    "engine_path": f"{_ENGINES}test_engine_path_says_where_an_engine_is",
    "resources": f"{_ONE}test_resources_are_believed",
}

VARIABLES: Mapping[str, str] = {
    "hf_endpoint": _FETCHED,
    "modelscope_endpoint": _MODELSCOPE,
    "modelscope_domain": _MODELSCOPE,
    "modelscope_api_token": _MODELSCOPE,
    "http_proxy": f"{_PROXY}test_the_hub_is_asked_through_the_proxy_and_the_cluster_never",
    "https_proxy": f"{_PROXY}test_the_hub_is_asked_through_the_proxy_and_the_cluster_never",
    "all_proxy": f"{_PROXY}test_the_hub_is_asked_through_the_proxy_and_the_cluster_never",
    "no_proxy": f"{_PROXY}test_who_is_exempt_is_asked_without_the_proxy",
    "disable_dynamic_link_llama_box": _TOOLS,
    "db_echo": _POOL,
    "db_pool_size": _POOL,
    "db_max_overflow": _POOL,
    "db_pool_timeout": _POOL,
    "proxy_timeout_seconds": f"{_VARIABLES}test_the_gateway_waits_as_long_and_takes_in_as_many_as_told",
    "tcp_connector_limit": f"{_VARIABLES}test_the_gateway_waits_as_long_and_takes_in_as_many_as_told",
    "jwt_token_expire_minutes": f"{_API}test_a_login_is_renewed_where_one_only_chats",
    "model_evaluation_cache_max_size": _VERDICTS,
    "model_evaluation_cache_ttl": _VERDICTS,
    "ray_placement_group_ready_timeout": (
        "tests/ray/test_options.py::test_ray_placement_group_ready_timeout_is_told_to_vllm"
    ),
    "default_max_rpc_server_count": f"{_VARIABLES}test_no_more_devices_of_other_workers_are_used_than_told",
    "default_max_rpc_combination_generate_gpu_count": (
        f"{_VARIABLES}test_no_more_devices_of_other_workers_are_used_than_told"
    ),
    "cuda_version": f"{_TOOLS_OF}test_the_tools_are_those_of_the_cuda_that_is_told",
    "cann_version": _CANN,
    "cann_chip": _CANN,
}
"""Of the environment, by the name of their field."""

MODEL_VARIABLES: Mapping[str, str] = {
    "GPUSTACK_MODEL_VRAM_CLAIM": f"{_VARIABLES}test_the_claims_of_a_model_are_what_is_set_aside_for_it",
    "GPUSTACK_MODEL_RAM_CLAIM": f"{_VARIABLES}test_the_claims_of_a_model_are_what_is_set_aside_for_it",
    "GPUSTACK_APPLY_QWEN3_RERANKER_TEMPLATES": (
        "tests/gateway/test_rerank.py"
        "::test_query_and_documents_are_put_into_the_format_of_the_model_and_come_back_without"
    ),
    "GPUSTACK_BACKEND_DEPS": f"{_ENGINES}test_backend_deps_are_installed_beside_the_engine_in_place_of_the_pins",
    "RESERVED_MEMORY_GB": f"{_MINDIE}test_mindie_is_started_with_its_files_and_keeps_what_it_is_told_to",
}
"""Of a model's own environment."""
