//! The program before it runs: its agents, tools, resources and settings.

use std::{
    any::{Any, TypeId},
    collections::{BTreeMap, HashMap},
    future::Future,
    sync::{Arc, Weak},
};

use arc_swap::ArcSwap;

use super::{
    configuration::{App, ReadSection, Section, Sections},
    groups::{Group, declared},
    kind::{AnyKind, Kind},
    kind_policy::KindPolicy,
    node::Node,
    probe::{Probe, StandIns},
    schedules::{self, Declared, Takes, takes},
    tool_cell::{AnyTool, Run, Spec, ToolHandle},
    trial::DryKind,
};
use crate::{
    agent::{
        Agent, Door, Message, Settings, Shape,
        host::Directory,
        schedule::{ScheduleOptions, Target},
    },
    config::{self, Errors, ToolOverrides},
    model::{
        group::GroupPolicy,
        id::{NameError, check_kind, check_tool},
        wire::{Wire, WireKind, WireMessage, WireTool},
    },
    store::Store,
    tool::{Call, Effect, Limits, Tool},
};

type MakeKind =
    Box<dyn FnOnce(Weak<Node>, &config::Settings) -> (Arc<dyn AnyKind>, Box<dyn Any + Send + Sync>) + Send>;
type MakeTool =
    Box<dyn FnOnce(Weak<Node>, &config::Settings, Option<Arc<StandIns>>) -> Arc<dyn AnyTool> + Send>;
type WireOfTool = (&'static str, Effect, fn() -> Shape);
type Declaration = (TypeId, (&'static str, ReadSection));

/// Puts something between the node and its store.
pub(crate) type WrapStore = Box<dyn FnOnce(Arc<dyn Store>) -> Arc<dyn Store> + Send>;

/// What a program is made of.
#[derive(Default)]
pub(crate) struct Registry {
    pub wrap_store: Option<WrapStore>,
    /// A test's hand in the node.
    pub probe: Option<Arc<dyn Probe>>,
    /// What a test puts in the place of tools.
    pub stand_ins: Option<Arc<StandIns>>,
    kinds: Vec<(&'static str, TypeId, MakeKind)>,
    dry: Vec<DryKind>,
    /// What others send to the kinds and the tools.
    wire_kinds: Vec<fn() -> (&'static str, WireKind)>,
    wire_tools: Vec<WireOfTool>,
    /// Which group the code puts a kind into.
    members: Vec<(&'static str, Option<&'static str>)>,
    groups: Vec<Group>,
    tools: Vec<(&'static str, MakeTool)>,
    /// What their inputs are.
    inputs: Vec<(&'static str, Takes)>,
    pub schedules: Vec<Declared>,
    resources: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    sections: Vec<Declaration>,
    app: App,
}

/// The same, built for a node.
pub(crate) struct Built {
    pub kinds: Vec<Arc<dyn AnyKind>>,
    pub directories: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    pub tools: BTreeMap<&'static str, Arc<dyn AnyTool>>,
    pub groups: Vec<Group>,
    pub resources: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    pub sections: Sections,
}

fn wire_kind<A: Agent>() -> (&'static str, WireKind) {
    let messages = Door::<A>::of().entries.into_iter().map(|entry| {
        let (takes, replies, refuses) =
            (entry.shape.input.clone(), entry.shape.reply.clone(), entry.shape.error.clone());
        (entry.shape.name.to_owned(), WireMessage { takes, replies, refuses })
    });
    (A::KIND, WireKind { version: A::VERSION, messages: messages.collect() })
}

impl Registry {
    pub(crate) fn agent<A: Agent>(&mut self) {
        let make: MakeKind = Box::new(|node, settings| {
            let policy = KindPolicy::of(&A::policy(), settings, A::KIND);
            let kind = Kind::<A>::new(node, policy);
            let directory: Option<Arc<Directory<A>>> = kind.directory.get().cloned();
            let directory: Box<dyn Any + Send + Sync> = match directory {
                Some(directory) => Box::new(directory),
                None => Box::new(()),
            };
            (kind, directory)
        });
        self.kinds.push((A::KIND, TypeId::of::<A>(), make));
        self.dry.push(DryKind::of::<A>());
        self.wire_kinds.push(wire_kind::<A>);
        self.members.push((A::KIND, A::policy().group));
    }

    /// The dry runs over the states of each kind.
    pub(crate) fn dry(&self) -> impl Iterator<Item = DryKind> + '_ {
        self.dry.iter().copied()
    }

    /// Every wire name, with its schemas.
    pub(crate) fn wire(&self) -> Wire {
        let kinds = self.wire_kinds.iter().map(|kind| kind()).map(|(name, kind)| (name.to_owned(), kind));
        let tools = self.wire_tools.iter().map(|(name, effect, shape)| {
            let (effect, shape) = (serde_json::to_value(effect), shape());
            let effect = effect.ok().and_then(|e| e.as_str().map(str::to_owned)).unwrap_or_default();
            ((*name).to_owned(), WireTool { effect, takes: shape.input, replies: shape.reply })
        });
        Wire { kinds: kinds.collect(), tools: tools.collect() }
    }

    pub(crate) fn group(&mut self, name: &str, policy: GroupPolicy) {
        self.groups.push(Group { name: name.to_owned(), policy });
    }

    pub(crate) fn tool<T: Tool>(&mut self, tool: T) {
        let tool = Arc::new(tool);
        let limits = tool.limits();
        self.add_tool::<T::Input, _, _>(T::NAME, T::EFFECT, limits, move |input, call| {
            let tool = tool.clone();
            async move { tool.run(input, &call).await }
        });
    }

    pub(crate) fn add_tool<M, F, R>(&mut self, name: &'static str, effect: Effect, limits: Limits, f: F)
    where
        M: Message,
        F: Fn(M, Call) -> R + Send + Sync + 'static,
        R: Future<Output = anyhow::Result<M::Reply>> + Send + 'static,
    {
        let make: MakeTool = Box::new(move |node, settings, stand_ins| {
            let run: Arc<Run<M>> = match stand_ins {
                None => Arc::new(move |input, call| Box::pin(f(input, call))),
                Some(stand_ins) => Arc::new(move |input, call| match stand_ins.find::<M>(name) {
                    Some(stand_in) => Box::pin(async move { stand_in(input) }),
                    None => Box::pin(f(input, call)),
                }),
            };
            let ToolOverrides { intensity, tasks } = settings.tool(name);
            let limits = limits.clone().bounded(tasks.bounds(limits.bounds()));
            let terms = settings.tasks.terms().with(limits.terms()).with(tasks.terms());
            ToolHandle::<M>::new(Spec { name, effect, limits, intensity, terms, run }, node)
        });
        self.tools.push((name, make));
        self.inputs.push((name, takes::<M>));
        self.wire_tools.push((name, effect, || Shape::of::<M>(false)));
    }

    pub(crate) fn schedule<M: Message>(
        &mut self,
        name: &'static str,
        spec: &str,
        to: Target<M>,
        message: &M,
        options: ScheduleOptions,
    ) {
        self.schedules.push(Declared::of(name, spec, to, message, options));
    }

    pub(crate) fn resource<T: Send + Sync + 'static>(&mut self, resource: T) {
        self.resources.insert(TypeId::of::<T>(), Box::new(resource));
    }

    pub(crate) fn settings<S: Settings>(&mut self) {
        fn read<S: Settings>(settings: &config::Settings) -> Result<Section, Errors> {
            let section: S = settings.app_as(S::SECTION)?;
            let key = || format!("app.{}", S::SECTION);
            section.validate().map_err(|e| Errors::one(&key(), format!("{e:#}")))?;
            Ok(Arc::new(section))
        }
        self.sections.push((TypeId::of::<S>(), (S::SECTION, read::<S>)));
    }

    /// Checks the program's own settings alone.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn misfits(&self, settings: &config::Settings) -> Result<(), Errors> {
        let read = self.sections.iter().filter_map(|(_, (_, read))| read(settings).err());
        let problems: Vec<_> = read.flat_map(|errors| errors.0).collect();
        if problems.is_empty() { Ok(()) } else { Err(Errors(problems)) }
    }

    /// Checks names, and reads the program's own settings.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub(crate) fn check(&mut self, settings: &config::Settings) -> Result<(), Vec<String>> {
        let mut wrong = Vec::new();
        let mut note = |result: Result<(), NameError>| wrong.extend(result.err().map(|e| e.to_string()));
        for (kind, ..) in &self.kinds {
            note(check_kind(kind));
        }
        for (tool, _) in &self.tools {
            note(check_tool(tool));
        }
        for group in &self.groups {
            note(check_kind(&group.name));
        }
        self.groups = declared(std::mem::take(&mut self.groups), settings);
        for (kind, code) in &self.members {
            let over = settings.overrides(kind).group;
            let name = over.or_else(|| code.map(str::to_owned)).unwrap_or_default();
            if !name.is_empty() && self.groups.iter().all(|group| group.name != name) {
                wrong.push(format!(
                    "the agents of `{kind}` belong to the group `{name}`, which nobody declares: add `.group(\"{name}\", …)` \
                     to the builder, or `[supervision.groups.{name}]` to the configuration"
                ));
            }
        }
        let mut names: Vec<_> =
            self.kinds.iter().map(|k| k.0).chain(self.tools.iter().map(|t| t.0)).collect();
        names.sort_unstable();
        let twice = names.iter().zip(names.iter().skip(1)).filter(|(a, b)| a == b);
        wrong.extend(twice.map(|(name, _)| format!("`{name}` is registered twice")));
        let kinds = self.kinds.iter().map(|(kind, ..)| *kind).collect();
        wrong.extend(schedules::check(&mut self.schedules, &kinds, &self.inputs));
        for (of, (_, read)) in &self.sections {
            match read(settings) {
                Ok(section) => {
                    self.app.insert(*of, section);
                }
                Err(errors) => wrong.extend(errors.0.iter().map(ToString::to_string)),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    pub(crate) fn build(self, node: &Weak<Node>, settings: &config::Settings) -> Built {
        let (mut kinds, mut directories) = (Vec::new(), HashMap::new());
        for (_, of, make) in self.kinds {
            let (kind, directory) = make(node.clone(), settings);
            kinds.push(kind);
            directories.insert(of, directory);
        }
        let declared = self.sections.into_iter().map(|(of, (_, read))| (of, read)).collect();
        let sections = Sections { declared, read: ArcSwap::from_pointee(self.app) };
        let tools = self
            .tools
            .into_iter()
            .map(|(name, make)| (name, make(node.clone(), settings, self.stand_ins.clone())))
            .collect();
        Built { kinds, directories, tools, groups: self.groups, resources: self.resources, sections }
    }
}
