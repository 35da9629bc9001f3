"""Which kind of model an architecture of ``config.json`` is, and which model types engines know by themselves.

Facts, taken from vLLM 0.32.0 (``vllm/model_executor/models/registry.py``) and transformers 5.23.0
(``transformers/models/auto/auto_mappings.py``), and architectures for speech that neither vLLM serves. What is not in
the tables is judged by how its name ends, as vLLM does (``vllm/config/model.py``: ``_SUFFIX_TO_DEFAULTS``).
"""

from __future__ import annotations

from collections.abc import Iterable

from .model import Category


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TEXT_GENERATORS = _words(
    """
    AfmoeForCausalLM ApertusForCausalLM AquilaForCausalLM AquilaModel ArceeForCausalLM ArcticForCausalLM
    AriaForConditionalGeneration AudioFlamingo3ForConditionalGeneration AXK1ForCausalLM
    AyaVisionForConditionalGeneration BagelForConditionalGeneration BaiChuanForCausalLM BaichuanForCausalLM
    BailingMoeForCausalLM BailingMoeV2_5ForCausalLM BailingMoeV2ForCausalLM BailingMoeV3ForCausalLM
    BailingMoeV3VLForConditionalGeneration BambaForCausalLM BeeForConditionalGeneration
    Blip2ForConditionalGeneration BloomForCausalLM ChameleonForConditionalGeneration ChatGLMForConditionalGeneration
    ChatGLMModel Cheers CheersForConditionalGeneration Cohere2ForCausalLM Cohere2MoeForCausalLM
    Cohere2VisionForConditionalGeneration CohereCompassForConditionalGeneration CohereForCausalLM
    Cosmos3EdgeForConditionalGeneration Cosmos3ForConditionalGeneration CwmForCausalLM DbrxForCausalLM
    DeciLMForCausalLM DeepseekForCausalLM DeepseekOCR2ForCausalLM DeepseekOCRForCausalLM DeepseekV2ForCausalLM
    DeepseekV32ForCausalLM DeepseekV3ForCausalLM DeepseekV41ForCausalLM DeepseekV4ForCausalLM
    DeepseekV4ForConditionalGeneration DeepseekVLV2ForCausalLM DiffusionGemmaForBlockDiffusion Dots1ForCausalLM
    Dots3NoteForCausalLM DotsOCRForCausalLM Eagle2_5_VLForConditionalGeneration Emu3ForConditionalGeneration
    Ernie4_5_MoeForCausalLM Ernie4_5_VLMoeForConditionalGeneration Ernie4_5ForCausalLM
    Exaone4_5_ForConditionalGeneration Exaone4ForCausalLM ExaoneForCausalLM ExaoneMoEForCausalLM
    ExaoneMoeForCausalLM Fairseq2LlamaForCausalLM FalconForCausalLM FalconH1ForCausalLM FalconMambaForCausalLM
    FlexOlmoForCausalLM FunAudioChatForConditionalGeneration FuyuForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM
    Gemma3ForConditionalGeneration Gemma3nForCausalLM Gemma3nForConditionalGeneration Gemma4ForCausalLM
    Gemma4ForConditionalGeneration Gemma4UnifiedForConditionalGeneration GemmaForCausalLM Glm4ForCausalLM
    Glm4MoeForCausalLM Glm4MoeLiteForCausalLM GLM4VForCausalLM Glm4vForConditionalGeneration
    Glm4vMoeForConditionalGeneration Glm5NextForCausalLM Glm5NextForConditionalGeneration GlmForCausalLM
    GlmMoeDsaForCausalLM GlmOcrForConditionalGeneration GPT2LMHeadModel GPTBigCodeForCausalLM GPTJForCausalLM
    GPTNeoXForCausalLM GptOssForCausalLM Granite4VisionForConditionalGeneration GraniteForCausalLM
    GraniteMoeForCausalLM GraniteMoeHybridForCausalLM GraniteMoeSharedForCausalLM GraniteMoeSWAForCausalLM
    GraniteSpeechForConditionalGeneration GraniteSpeechPlusForConditionalGeneration GraniteSWAForCausalLM
    Grok1ForCausalLM Grok1ModelForCausalLM H2OVLChatModel HCXVisionForCausalLM HCXVisionV2ForCausalLM HfMoondream
    HrmTextForCausalLM HunYuanDenseV1ForCausalLM HunYuanMoEV1ForCausalLM HunYuanVLForConditionalGeneration
    HyperCLOVAXForCausalLM HYV3ForCausalLM HYV4ForCausalLM Idefics3ForConditionalGeneration InklingForCausalLM
    InklingForConditionalGeneration InternLM2ForCausalLM InternLM2VEForCausalLM InternLM3ForCausalLM
    InternLMForCausalLM InternS1ForConditionalGeneration InternS1ProForConditionalGeneration
    InternS2MobiusForConditionalGeneration InternS2PreviewForConditionalGeneration InternVLChatModel
    InternVLForConditionalGeneration IQuestCoderForCausalLM IQuestLoopCoderForCausalLM IsaacForConditionalGeneration
    Jais2ForCausalLM JAISLMHeadModel JambaForCausalLM K2HorizonForCausalLM KananaVForConditionalGeneration
    KeyeForConditionalGeneration KeyeVL1_5ForConditionalGeneration KimiK25ForConditionalGeneration
    KimiK3ForConditionalGeneration KimiLinearForCausalLM KimiVLForConditionalGeneration LagunaForCausalLM
    Lfm2ForCausalLM Lfm2MoeForCausalLM Lfm2VlForConditionalGeneration LightOnOCRForConditionalGeneration
    Llama4ForCausalLM Llama4ForConditionalGeneration Llama_Nemotron_Nano_VL LlamaForCausalLM LLaMAForCausalLM
    LlavaForConditionalGeneration LlavaNextForConditionalGeneration LlavaNextVideoForConditionalGeneration
    LlavaOnevision2ForConditionalGeneration LlavaOnevisionForConditionalGeneration LongcatFlashForCausalLM
    LongcatFlashNgramForCausalLM Mamba2ForCausalLM MambaForCausalLM MantisForConditionalGeneration MellumForCausalLM
    MiDashengLMModel MiMoForCausalLM MiMoV2FlashForCausalLM MiMoV2ForCausalLM MiMoV2OmniForCausalLM
    MiniCPM3ForCausalLM MiniCPMForCausalLM MiniCPMO MiniCPMV MiniCPMV4_6ForConditionalGeneration
    MiniCPMV4_7ForConditionalGeneration MiniMaxForCausalLM MiniMaxM1ForCausalLM MiniMaxM2ForCausalLM
    MiniMaxM3SparseForCausalLM MiniMaxM3SparseForConditionalGeneration MiniMaxText01ForCausalLM
    MiniMaxVL01ForConditionalGeneration Ministral3ForCausalLM Mistral3ForConditionalGeneration MistralForCausalLM
    MistralLarge3ForCausalLM MixtralForCausalLM MllamaForConditionalGeneration Molmo2ForConditionalGeneration
    MolmoForCausalLM Moondream3ForCausalLM MoonshotKimiaForCausalLM MossAudioModel MotifForCausalLM MPTForCausalLM
    MptForCausalLM MuseGlimmerForCausalLM MuseGlimmerForConditionalGeneration MusicFlamingoForConditionalGeneration
    NanbeigeForCausalLM NemotronForCausalLM NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Nano_VL_V2
    NemotronH_Omni_Reasoning_V3 NemotronH_Super_Omni_Reasoning_V3 NemotronHForCausalLM NemotronHPuzzleForCausalLM
    NemotronParseForConditionalGeneration NVLM_D Olmo2ForCausalLM Olmo3ForCausalLM OlmoeForCausalLM OlmoForCausalLM
    OlmoHybridForCausalLM OpenCUAForConditionalGeneration OpenPanguVLForConditionalGeneration OPTForCausalLM
    OrionForCausalLM OuroForCausalLM Ovis Ovis2_5 Ovis2_6_MoeForCausalLM Ovis2_6ForCausalLM
    PaddleOCRVLForConditionalGeneration PaliGemmaForConditionalGeneration PanguEmbeddedForCausalLM
    PanguProMoEV2ForCausalLM PanguUltraMoEForCausalLM Param2MoEForCausalLM PersimmonForCausalLM Phi3ForCausalLM
    Phi3SmallForCausalLM Phi3VForCausalLM Phi4FlashForCausalLM Phi4ForCausalLMV Phi4MMForCausalLM
    Phi4MultimodalForCausalLM PhiForCausalLM PhiMoEForCausalLM PixtralForConditionalGeneration Plamo2ForCausalLM
    Plamo3ForCausalLM QianfanOCRForConditionalGeneration Qwen2_5_VLForConditionalGeneration
    Qwen2_5OmniForConditionalGeneration Qwen2_5OmniModel Qwen2AudioForConditionalGeneration Qwen2ForCausalLM
    Qwen2MoeForCausalLM Qwen2VLForConditionalGeneration Qwen3_5ForCausalLM Qwen3_5ForConditionalGeneration
    Qwen3_5MoeForCausalLM Qwen3_5MoeForConditionalGeneration Qwen3ForCausalLM Qwen3MoeForCausalLM
    Qwen3NextForCausalLM Qwen3OmniMoeForConditionalGeneration Qwen3VLForConditionalGeneration
    Qwen3VLMoeForConditionalGeneration Qwen4ExpForCausalLM Qwen4ExpForConditionalGeneration QWenLMHeadModel
    QwenVLForConditionalGeneration RForConditionalGeneration Rnj1ForCausalLM RWForCausalLM SarvamMLAForCausalLM
    SarvamMoEForCausalLM SeedOssForCausalLM SkyworkR1VChatModel SmolLM3ForCausalLM SmolVLMForConditionalGeneration
    SolarForCausalLM StableLMEpochForCausalLM StableLmForCausalLM Starcoder2ForCausalLM Step1ForCausalLM
    Step3p5ForCausalLM Step3p7ForConditionalGeneration Step3TextForCausalLM Step3VLForConditionalGeneration
    StepVLForConditionalGeneration Tarsier2ForConditionalGeneration TarsierForConditionalGeneration
    TeleChat2ForCausalLM TeleChat3ForCausalLM TeleChatForCausalLM TeleFLMForCausalLM TransformersForCausalLM
    TransformersMoEForCausalLM TransformersMultiModalForCausalLM TransformersMultiModalMoEForCausalLM UltravoxModel
    UnlimitedOCRForCausalLM VaultGemmaForCausalLM VoxtralForConditionalGeneration XverseForCausalLM
    Zamba2ForCausalLM
    """
)
"""Answer with text: also those that see or hear, and those that vLLM has served before 0.32."""

EMBEDDERS = _words(
    """
    AlbertModel BertForMaskedLM BertModel BertSpladeSparseEmbeddingModel BgeM3EmbeddingModel CamembertModel
    CLIPModel ColBERTJinaRobertaModel ColBERTLfm2Model ColBERTModernBertModel ColModernVBertForRetrieval
    ColPaliForRetrieval ColQwen3 ColQwen3_5 DebertaV2Model DeepseekV3BidirectionalModel DistilBertForMaskedLM
    DistilBertModel ElectraModel EmbeddingGemma2Model Gemma2Model Gemma3TextModel GteModel GteNewModel HF_ColBERT
    JinaBertForMaskedLM JinaBertModel JinaEmbeddingsV5Model LlamaBidirectionalModel LlamaModel LlamaNemotronVLModel
    MistralModel ModernBertModel MPNetForMaskedLM MPNetModel NewModel NomicBertModel NomicBertMoEModel
    OpsColQwen3Model Qwen2Model Qwen3VLNemotronEmbedModel RobertaForMaskedLM RobertaModel SiglipModel T5EncoderModel
    TransformersEmbeddingModel TransformersMoEEmbeddingModel TransformersMultiModalEmbeddingModel
    VoyageQwen3BidirectionalEmbedModel XLMRobertaModel
    """
)
"""Answer with vectors."""

RERANKERS = _words(
    """
    BertForSequenceClassification GPT2ForSequenceClassification GteNewForSequenceClassification
    JambaForSequenceClassification JinaForRanking JinaVLForRanking LlamaBidirectionalForSequenceClassification
    LlamaNemotronVLForSequenceClassification ModernBertForSequenceClassification RobertaForSequenceClassification
    TransformersForSequenceClassification TransformersMoEForSequenceClassification
    TransformersMultiModalForSequenceClassification XLMRobertaForSequenceClassification
    """
)
"""Answer with a score."""

LISTENERS = _words(
    """
    CohereAsrForConditionalGeneration FireRedASR2ForConditionalGeneration FunASRForConditionalGeneration
    GlmAsrForConditionalGeneration HubertForCTC KyutaiSpeechToTextForConditionalGeneration
    MoonshineForConditionalGeneration MossTranscribeDiarizeForConditionalGeneration ParakeetForCTC
    Qwen3ASRForConditionalGeneration Qwen3ASRRealtimeGeneration Speech2TextForConditionalGeneration
    VibeVoiceAsrForConditionalGeneration VoxtralRealtimeGeneration Wav2Vec2ForCTC WavLMForCTC
    WhisperForConditionalGeneration
    """
)
"""Turn speech into text, and can nothing else."""

SPEAKERS = _words(
    """
    BarkModel CsmForConditionalGeneration DiaForConditionalGeneration FastSpeech2ConformerModel
    FastSpeech2ConformerWithHifiGan HiggsAudioV2ForConditionalGeneration ParlerTTSForConditionalGeneration
    Qwen3TTSForConditionalGeneration SpeechT5ForTextToSpeech VibeVoiceForConditionalGeneration VitsModel
    """
)
"""Turn text into speech."""

DRAFTS = _words(
    """
    BailingMoeV25MTPModel BailingMoeV3MTPModel DeepSeekMTPModel DeepseekV32MTPModel DeepSeekV4MTPModel
    DFlash2DraftModel DFlashDraftModel DFlashLagunaForCausalLM DFlashMuseGlimmerAssistantModel Dots3NoteMTPModel
    DSparkDraftModel DSparkV41DraftModel Eagle3DeepseekV2ForCausalLM Eagle3DeepseekV3ForCausalLM
    Eagle3LlamaForCausalLM Eagle3MiniMaxM2ForCausalLM Eagle3Qwen2_5vlForCausalLM Eagle3Qwen3ForCausalLM
    Eagle3Qwen3vlForCausalLM EagleCohereForCausalLM EagleDeepSeekMTPModel EagleLlama4ForCausalLM
    EagleLlamaForCausalLM EagleMiniCPMForCausalLM EagleMistralForCausalLM EagleMistralLarge3ForCausalLM
    ErnieMTPModel Exaone4_5_MTP ExaoneMoeMTP ExtractHiddenStatesModel Gemma4DSparkModel Gemma4MTPModel
    Glm4MoeLiteMTPModel Glm4MoeMTPModel Glm5NextMTPModel GlmOcrMTPModel HYV3MTPModel HYV4MTPModel InklingMTPModel
    InternS2MobiusMTP K3DSparkModel KimiK3MTPModel LiLiCorrDraftModel LlamaForCausalLMEagle3 LongCatFlashMTPModel
    MedusaModel MiMoMTPModel MiMoV2MTPModel MiMoV2OmniMTPModel MiniMaxM3MTP MuseGlimmerAssistantModel
    NemotronHMTPModel OpenPanguMTPModel PEagleDraftModel PeagleLlamaForCausalLM PeagleQwen3ForCausalLM Qwen3_5MoeMTP
    Qwen3_5MTP Qwen3DSparkModel Qwen3NextMTP Qwen3OmniDSparkModel Qwen4ExpMTP Step3p5MTP
    """
)
"""Speed up another model, and serve nobody alone."""

KNOWN_MODEL_TYPES = _words(
    """
    afmoe aimv2 aimv2_text_model albert align align_text_model altclip altclip_text_model apertus arcee aria
    aria_text audio-spectrogram-transformer audioflamingo3 autoformer axk1 axk2 bagel bailing_hybrid
    bailing_moe_v3_vl bamba bark bart beam beit bert bert-generation big_bird bigbird_pegasus biogpt bitnet
    blenderbot blenderbot-small blip blip-2 blip_text_model bloom blt blt_global_transformer blt_patcher bridgetower
    bridgetower_text_model bros camembert canary canine chameleon chatglm chinese_clip chinese_clip_text_model chmv2
    clap clap_text_model clip clip_text_model clipseg clipseg_text_model clvp codegen cohere cohere2 cohere2_moe
    cohere_asr cohere_compass cohere_compass_text colmodernvbert colpali colqwen2 colqwen3 conditional_detr
    cosmos3_edge cosmos3_edge_text cosmos3_omni cpmant csm ctrl cvt cwm d_fine dab-detr dac data2vec-audio
    data2vec-text data2vec-vision dbrx deberta deberta-v2 decision_transformer deepseek_ocr2 deepseek_ocr2_text
    deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 deepseek_v41 deepseek_vl deepseek_vl_hybrid deepseek_vl_v2
    deformable_detr deimv2 deit dia diffllama diffusion_gemma diffusion_gemma_text dinat distilbert doge donut-swin
    dots1 dots3_note dots3_note_text dpr eagle edgetam edgetam_video efficientloftr efficientnet electra
    embedding_gemma2 embedding_gemma2_text emu3 emu3_text_model encodec encoder-decoder eomt eomt_dinov3 ernie
    ernie4_5 ernie4_5_moe ernie4_5_vl_moe ernie4_5_vl_moe_text eurobert evolla exaone4 exaone4_5 exaone_moe falcon
    falcon_h1 falcon_mamba fast_vlm fastspeech2_conformer fastspeech2_conformer_hifigan
    fastspeech2_conformer_with_hifigan flaubert flava flava_image_codebook flava_image_model flava_multimodal_model
    flava_text_model flex_olmo flint florence2 fnet focalnet fsmt fun_asr_nano funaudiochat funnel fuyu gemma gemma2
    gemma3 gemma3_text gemma3n gemma3n_text gemma4 gemma4_assistant gemma4_text gemma4_unified
    gemma4_unified_assistant gemma4_unified_text git glm glm4 glm46v glm4_moe glm4_moe_lite glm4v glm4v_moe
    glm4v_moe_text glm4v_text glm5_next glm5_next_text glm_image glm_image_text glm_image_vqmodel glm_moe_dsa
    glm_ocr glm_ocr_text glmasr glmga glpn got_ocr2 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese gpt_oss gptj
    gradium_phonon_tts granite granite_docling granite_docling_text granite_speech granite_speech5_ctc
    granite_speech_plus granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared grounding-dino
    groupvit groupvit_text_model gte helium hgnet_v2 hiera hrm_text hubert hunyuan_v1_dense hunyuan_v1_moe
    hunyuan_vl hunyuan_vl_text hy_v3 hy_v4 hyperclovax ibert idefics idefics2 idefics2_perceiver idefics3
    idefics_perciever ijepa imagegpt informer inkling2 inkling2_text inkling_mm_model inkling_model inkling_text
    instructblip instructblipvideo internlm3 internvl iquestcoder isaac jais2 jamba janus jetmoe jev
    jina_embeddings_v3 k3_dspark kimi_k2 kimi_k25 kimi_k3 kimi_linear kimi_vl kolibri1 kosmos-2 kosmos-2.5
    kosmos_2_5_text_model kosmos_2_text_model kyutai_speech_to_text laguna lasr_ctc layoutlm layoutlmv2 layoutlmv3
    layoutxlm led lfm2 lfm2_moe lfm2_vl lfm3 lfm3_vl lightglue lighton_ocr lilt llama llama4 llama4_text llava
    llava_next llava_next_video llava_onevision longcat_flash longformer longt5 luke lw_detr lw_detr_vit lxmert
    m2m_100 mamba mamba2 marian markuplm mbart medusa megatron-bert mellum metaclip_2 metaclip_2_text_model mgp-str
    midashenglm mimi mimo_v2_flash minicpm3 minicpm_ocr minicpmv4_6 minicpmv4_7 minimax minimax_m2 minimax_m3_mtp
    minimax_m3_vl minimax_m3_vl_text ministral ministral3 mistral mistral3 mistral4 mistral_large4
    mistral_large4_text mixtral mllama mllama_text_model mlp_speculator modernbert modernbert-decoder modernvbert
    molmo2 molmo2_adapter molmo2_text moondream3 moonshine moonshine_streaming moshi moshi_depth
    moss_transcribe_diarize mpnet mpt mra mt5 muse_glimmer muse_glimmer_assistant muse_glimmer_text
    muse_glimmer_vision muse_spark muse_spark_text musicflamingo musicgen musicgen_melody mvp nanochat nemo_speechlm
    nemotron nemotron3_5_asr nemotron3_5_transcribe_word_timestamp nemotron3_diarization nemotron_asr_streaming
    nemotron_h nemotron_h_omni neomme neucodec nllb-moe nomic_bert nougat nystromformer olmo olmo2 olmo3 olmo_hybrid
    olmoe omdet-turbo oneformer openai-gpt openai_privacy_filter openvla ops_colqwen3 opt ovis ovis2 owlv2
    owlv2_text_model owlvit owlvit_text_model paddleocr_vl paddleocr_vl_text paligemma parakeet_ctc parakeet_rnnt
    pe_video pegasus pegasus_x perceiver perception_lm persimmon phi phi3 phi4_multimodal phimoe pi0 pix2struct
    pix2struct_text_model pixio pixtral plbart pocket_tts poolformer pop2piano prompt_depth_anything prophetnet pvt
    pvt_v2 qianfan_ocr qwen2 qwen2_5_omni qwen2_5_omni_talker qwen2_5_omni_text qwen2_5_omni_thinker qwen2_5_vl
    qwen2_5_vl_text qwen2_moe qwen2_vl qwen2_vl_text qwen3 qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text
    qwen3_asr qwen3_moe qwen3_next qwen3_omni_moe qwen3_omni_moe_talker_code_predictor qwen3_omni_moe_talker_text
    qwen3_omni_moe_text qwen3_omni_moe_thinker qwen3_vl qwen3_vl_moe qwen3_vl_moe_text qwen3_vl_nemotron_embed
    qwen3_vl_text qwen4_exp qwen4_exp_text radio rag recurrent_gemma RefinedWeb RefinedWebModel reformer regnet
    rembert rf_detr rf_detr_dinov2 roberta roberta-prelayernorm roc_bert roformer rwkv sapiens2 sapiens2_head
    seamless_m4t seamless_m4t_v2 seed_oss sew sew-d shieldgemma2 siglip siglip2 siglip2_text_model siglip_text_model
    slanet slanext smollm3 smolvlm solar_open speculators speech-encoder-decoder speech_to_text speecht5
    speecht5_hifigan splinter squeezebert stablelm starcoder2 step3_text step3_vl step3p5 step3p7 superglue
    superpoint swiftformer switch_transformers t5 t5_gemma_module t5gemma t5gemma2 t5gemma2_text table-transformer
    tapas textnet timm_backbone timm_wrapper tipsv2 tipsv2_dpt tipsv2_text_model trocr tvp udop ultrabert ultravbert
    ultravox umt5 unispeech unispeech-sat unlimited-ocr unlimited_ocr unlimited_ocr_text upernet uvdoc
    uvdoc_backbone vaultgemma vibevoice vibevoice_asr vibevoice_diffusion video_llama_3 video_llava videomae videomt
    videoprism videoprism_text_model vilt vipllava vision-encoder-decoder vision-text-dual-encoder visual_bert vivit
    voxtral voxtral_realtime voxtral_realtime_text whisper xclip xclip_text_model xcodec xcodec2 xglm xlm
    xlm-roberta xlm-roberta-xl xlnet xlstm xmod yoso youtu zamba zamba2 zaya zoedepth
    """
)
"""``model_type`` of configurations that vLLM or transformers read without code from the repository."""

_TABLES: tuple[tuple[frozenset[str], Category], ...] = (
    (TEXT_GENERATORS, Category.LLM),
    (EMBEDDERS, Category.EMBEDDING),
    (RERANKERS, Category.RERANKER),
    (LISTENERS, Category.SPEECH_TO_TEXT),
    (SPEAKERS, Category.TEXT_TO_SPEECH),
    (DRAFTS, Category.UNKNOWN),
)
_SUFFIXES: tuple[tuple[str, Category], ...] = (
    ("ForCausalLM", Category.LLM),
    ("ForConditionalGeneration", Category.LLM),
    ("ChatModel", Category.LLM),
    ("LMHeadModel", Category.LLM),
    ("ForTextEncoding", Category.EMBEDDING),
    ("EmbeddingModel", Category.EMBEDDING),
    ("ForSequenceClassification", Category.RERANKER),
)


def category_of(architectures: Iterable[str]) -> Category | None:
    """The category of the first architecture that is known, in a table or by its ending; ``None`` if there is none."""
    for name in architectures:
        for known, category in _TABLES:
            if name in known:
                return category
        for ending, category in _SUFFIXES:
            if name.endswith(ending):
                return category
    return None


def is_native(architectures: Iterable[str], model_type: str | None) -> bool:
    """Whether engines know both the configuration and an architecture, so that code in a repository is not needed."""
    known = any(name in table for name in architectures for table, _ in _TABLES)
    return known and model_type in KNOWN_MODEL_TYPES
