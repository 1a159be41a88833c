//! The server in the protocol library's words: which request becomes which call, and what becomes
//! of its answer. Made once for a process, cloned for every client.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use pando_api::{ApiError, Caller, Control};
use pando_model::ErrorCode;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams,
    CompleteResult, CompletionInfo, CreateTaskResult, GetPromptRequestParams, GetPromptResponse,
    GetPromptResult, GetTaskParams, GetTaskResult, Implementation, InitializeRequestParams,
    InitializeResult, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
    ListToolsResult, PaginatedRequestParams, Prompt, PromptArgument, PromptMessage,
    ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
    Reference, Resource, ResourceContents, ResourceTemplate, Role, ServerCapabilities,
    ServerConfig, SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams,
    UpdateTaskParams,
};
use rmcp::service::{RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::answer::Answer;
use crate::calls::{Calls, Outcome};
use crate::complete::{self, Of};
#[cfg(feature = "conformance")]
use crate::conformance;
use crate::limits::{MAX_CALLS, WAIT};
use crate::profile::Profile;
use crate::requester::{Requester, consent};
use crate::subscriptions::{self, Subscriptions};
use crate::unwind::Caught;
use crate::words::{self, input_required, protocol_error, result};
use crate::{prompts, resources, tasks, tools};

/// The revisions that are spoken, oldest first.
const VERSIONS: &[ProtocolVersion] =
    &[ProtocolVersion::V_2025_06_18, ProtocolVersion::V_2025_11_25, ProtocolVersion::V_2026_07_28];

/// How long clients may believe what never changes while the process lives, in milliseconds.
const FIXED_TTL_MS: u64 = 3_600_000;

const INSTRUCTIONS: &str = "\
Whole virtual machines, and clusters of them, that behave like git. vm_create makes a machine, \
cluster_define and cluster_start a cluster with its network; exec_run runs commands. \
commit_create keeps memory, devices, disks and network of all nodes at one instant; branch_create \
makes live copies of a branch or commit (same addresses, no collision) to try things in parallel; \
net_partition and net_impair break one branch's network, net_heal_all mends it; branch_rollback \
returns to a commit.
An address is CLUSTER[@BRANCH][/NODE]; a lone machine may be left out. Ids (br_, cm_, op_) and, \
for commits, CLUSTER@TAG stand as well.
Every result is {success, result, error}; `next` is a call that can be made as it stands. What \
may lose something returns a plan first. Long work returns an operation_id: operation_wait.";

/// See the module.
#[derive(Clone)]
pub struct Handler {
    calls: Arc<Calls>,
    tools: Arc<Vec<Tool>>,
    permits: Arc<Semaphore>,
    /// Set once the client is gone: what it began then goes on.
    closed: CancellationToken,
    subscriptions: Subscriptions,
}

impl Handler {
    /// Returns a server of `control` for `caller`, who may do what `profile` permits. `key` makes
    /// the tokens of plans this server's own.
    pub fn new(control: Arc<dyn Control>, caller: Caller, profile: Profile, key: [u8; 32]) -> Self {
        let tools = tools::tools(&profile).into_iter().map(words::tool);
        #[cfg(feature = "conformance")]
        let tools = tools.chain(conformance::tools());
        let tools = tools.collect();
        Self {
            calls: Arc::new(Calls {
                control,
                caller,
                profile,
                wait: WAIT,
                key,
                spent: Arc::default(),
            }),
            tools: Arc::new(tools),
            permits: Arc::new(Semaphore::new(MAX_CALLS)),
            closed: CancellationToken::new(),
            subscriptions: Subscriptions::new(),
        }
    }

    /// Returns a server whose calls wait for their operations for another time.
    #[must_use]
    pub fn waiting(mut self, wait: Duration) -> Self {
        self.calls = Arc::new(Calls { wait, ..(*self.calls).clone() });
        self
    }

    /// Returns the same server for another caller: the tools, and the limit on calls at once, are
    /// shared.
    #[must_use]
    pub fn for_caller(mut self, caller: Caller) -> Self {
        self.calls = Arc::new(Calls { caller, ..(*self.calls).clone() });
        self
    }

    /// Returns the same server for one client, whose going away sets `closed`.
    pub(crate) fn until(mut self, closed: CancellationToken) -> Self {
        self.closed = closed;
        self.subscriptions = self.subscriptions.of_session();
        self
    }

    /// Does a piece of work of which a defect must not end the session.
    async fn guarded<T>(&self, work: impl Future<Output = T>) -> Result<T, ApiError> {
        let _permit =
            self.permits.acquire().await.map_err(|_| {
                ApiError::new(ErrorCode::Internal, "this server is being shut down")
            })?;
        Caught::new(work).await.ok_or_else(|| {
            tracing::error!("a request ended by a defect");
            ApiError::new(ErrorCode::Internal, "a defect of pando ended this request")
                .hint("`pando logs` shows more; the session goes on")
        })
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_resources_list_changed()
            .enable_completions()
            .enable_prompts()
            .enable_tasks();
        #[cfg(feature = "conformance")]
        #[expect(deprecated, reason = "the suite asks for it as long as a revision has it")]
        let capabilities = capabilities.enable_logging();
        let capabilities = capabilities.build();
        ServerConfig::new(capabilities)
            .with_protocol_version(ProtocolVersion::V_2025_11_25)
            .with_server_info(
                Implementation::new("pando", env!("CARGO_PKG_VERSION")).with_title("pando"),
            )
            .with_instructions(INSTRUCTIONS)
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(VERSIONS)
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        let mut answer = self.negotiate_initialize(&request)?;
        context.peer.set_peer_info(request);
        // Tasks are of the revision that has no `initialize`.
        answer.capabilities.extensions = None;
        // Nobody is told of new resources unasked, and these revisions have no way to ask.
        if let Some(resources) = &mut answer.capabilities.resources {
            resources.list_changed = None;
        }
        Ok(answer)
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        // Another process may have another profile.
        Ok(ListToolsResult::with_all_items(self.tools.to_vec())
            .with_ttl_ms(FIXED_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        #[cfg(feature = "conformance")]
        if let Some(answer) = conformance::call(&self.calls.key, &request, &context).await {
            return answer;
        }
        let consent = consent(&request);
        let calls = Arc::clone(&self.calls);
        let client = Requester::new(context, self.closed.clone());
        let outcome = self
            .guarded(async move {
                if client.has_left() {
                    let message = "the request was taken back before it was begun";
                    return Outcome::Done(Answer::error(ApiError::new(
                        ErrorCode::Cancelled,
                        message,
                    )));
                }
                let arguments = request.arguments.unwrap_or_default();
                calls.call(&request.name, arguments, consent, &client).await
            })
            .await;
        Ok(match outcome {
            Ok(Outcome::Done(answer)) => result(&answer).into(),
            Ok(Outcome::Ask { question, token }) => input_required(&question, token),
            Ok(Outcome::Begun(view)) => CreateTaskResult::new(tasks::task(&view)).into(),
            Err(error) => result(&Answer::error(error)).into(),
        })
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let calls = Arc::clone(&self.calls);
        let listed = self.guarded(async move { resources::list(&calls).await }).await;
        let entries = listed.flatten().map_err(|error| protocol_error(&error))?;
        let resources = entries.into_iter().map(|entry| {
            Resource::new(entry.uri, entry.name)
                .with_description(entry.description)
                .with_mime_type(entry.mime)
        });
        #[cfg(feature = "conformance")]
        let resources = resources.chain(conformance::resources());
        Ok(ListResourcesResult::with_all_items(resources.collect())
            .with_ttl_ms(0)
            .with_cache_scope(CacheScope::Private))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let templates = resources::TEMPLATES.iter().map(|template| {
            ResourceTemplate::new(template.uri, template.name)
                .with_description(template.description)
                .with_mime_type(template.mime)
        });
        #[cfg(feature = "conformance")]
        let templates = templates.chain(conformance::templates());
        Ok(ListResourceTemplatesResult::with_all_items(templates.collect())
            .with_ttl_ms(FIXED_TTL_MS)
            .with_cache_scope(CacheScope::Public))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        #[cfg(feature = "conformance")]
        if let Some(answer) = conformance::read(&request.uri) {
            return answer.map(Into::into);
        }
        let calls = Arc::clone(&self.calls);
        let uri = request.uri.clone();
        let read = self.guarded(async move { resources::read(&calls, &uri).await }).await;
        let contents = read.flatten().map_err(|error| {
            let mut error = protocol_error(&error);
            if let Some(data) = error.data.as_mut().and_then(Value::as_object_mut) {
                data.insert("uri".to_owned(), Value::from(request.uri.as_str()));
            }
            error
        })?;
        let contents =
            ResourceContents::text(contents.text, request.uri).with_mime_type(contents.mime);
        Ok(ReadResourceResult::new(vec![contents])
            .with_ttl_ms(0)
            .with_cache_scope(CacheScope::Private)
            .into())
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let prompts = prompts::PROMPTS.iter().map(|prompt| {
            let arguments = prompt.arguments.iter().map(|argument| {
                PromptArgument::new(argument.name)
                    .with_description(argument.description)
                    .with_required(argument.default.is_none())
            });
            let arguments = Some(arguments.collect());
            Prompt::new(prompt.name, Some(prompt.description), arguments).with_title(prompt.title)
        });
        #[cfg(feature = "conformance")]
        let prompts = prompts.chain(conformance::prompts());
        Ok(ListPromptsResult::with_all_items(prompts.collect())
            .with_ttl_ms(FIXED_TTL_MS)
            .with_cache_scope(CacheScope::Public))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        #[cfg_attr(not(feature = "conformance"), expect(unused, reason = "ours need none"))]
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        #[cfg(feature = "conformance")]
        if let Some(answer) = conformance::prompt(&self.calls.key, &request, &context.meta) {
            return answer;
        }
        let given = request.arguments.unwrap_or_default();
        let argument = |name: &str| match given.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        };
        let (prompt, text) = prompts::text(&request.name, &argument).map_err(|error| {
            // No prompt is a wrong parameter, in every revision.
            let error = ApiError { code: ErrorCode::InvalidParameter, ..error };
            protocol_error(&error)
        })?;
        let message = PromptMessage::new_text(Role::User, text);
        Ok(GetPromptResult::new(vec![message]).with_description(prompt.description).into())
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        tasks::check(&context)?;
        let calls = Arc::clone(&self.calls);
        let got = self.guarded(async move { tasks::get(&calls, &request.task_id).await }).await;
        got.flatten().map(GetTaskResult::new).map_err(|error| protocol_error(&error))
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        tasks::check(&context)?;
        // No operation asks anybody anything once it is begun, so every response is one that
        // nobody waits for; but the task must be there.
        let calls = Arc::clone(&self.calls);
        let got = self.guarded(async move { calls.operation(&request.task_id).await }).await;
        got.flatten().map(drop).map_err(|error| protocol_error(&error))
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        tasks::check(&context)?;
        let calls = Arc::clone(&self.calls);
        let done = self.guarded(async move { tasks::cancel(&calls, &request.task_id).await }).await;
        done.flatten().map_err(|error| protocol_error(&error))
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        #[cfg(feature = "conformance")]
        if let Reference::Prompt(prompt) = &request.r#ref
            && conformance::has_prompt(&prompt.name)
        {
            return Ok(CompleteResult::default());
        }
        let calls = Arc::clone(&self.calls);
        let found = self.guarded(async move {
            let of = match &request.r#ref {
                Reference::Prompt(prompt) => Of::Prompt(&prompt.name),
                Reference::Resource(template) => Of::Resource(&template.uri),
                _ => {
                    let message = "`ref` must be a prompt or a resource template";
                    return Err(ApiError::parameter("ref", message));
                }
            };
            let before = request.context.and_then(|context| context.arguments);
            let cluster = before.as_ref().and_then(|before| before.get("cluster"));
            let (name, typed) = (&request.argument.name, &request.argument.value);
            complete::names(&calls, of, name, typed, cluster.map(String::as_str)).await
        });
        let names = found.await.flatten().map_err(|error| {
            // What does not exist is a wrong parameter, in every revision.
            protocol_error(&match error.code {
                ErrorCode::NotFound => ApiError { code: ErrorCode::InvalidParameter, ..error },
                _ => error,
            })
        })?;
        let total = u32::try_from(names.total).ok();
        let info = CompletionInfo::with_pagination(names.values, total, names.has_more);
        info.map(CompleteResult::new).map_err(|message| ErrorData::internal_error(message, None))
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        #[cfg(feature = "conformance")]
        if conformance::is_watched(&request.uri) {
            return Ok(());
        }
        let begun = self.subscriptions.begin(&self.calls, &request.uri, context.peer);
        begun.map_err(|error| protocol_error(&error))
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.subscriptions.end(&request.uri);
        Ok(())
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(subscriptions::accepted(&self.calls, requested))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let listened = self.subscriptions.listen(&self.calls, &context, &self.closed).await;
        listened.map_err(|error| protocol_error(&error))
    }

    #[cfg(feature = "conformance")]
    #[expect(deprecated, reason = "the suite asks for it as long as a revision has it")]
    async fn set_level(
        &self,
        _request: rmcp::model::SetLevelRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        conformance::check_level(&context)
    }
}
